import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { siteEnvironment } from "../integrations/plain-site.ts";
import { lacks, peers } from "../peers/peers.ts";
import { FrontedNodes } from "./fronted.ts";

const run = promisify(execFile);
const names = ["a", "b", "c"] as const;
const LIMIT_MS = 30_000;

/** A browser: it keeps cookies, and takes them to whichever node it comes to. */
class Browser {
  readonly #cookies = new Map<string, string>();

  async ask(url: string, options: { method?: string; body?: URLSearchParams } = {}): Promise<Response> {
    const cookie = [...this.#cookies].map(([name, value]) => `${name}=${value}`).join("; ");
    const signal = AbortSignal.timeout(LIMIT_MS);
    const response = await fetch(url, {
      ...options,
      headers: { cookie },
      redirect: "manual",
      signal,
    });
    for (const set of response.headers.getSetCookie()) {
      const [name = "", value = ""] = set.split(";")[0]!.split(/=(.*)/s);
      this.#cookies.set(name, value);
    }
    return response;
  }

  /** Logs in to Django's admin; the status, and where it leads. */
  async logIn(door: string): Promise<readonly [number, string | null]> {
    await this.ask(`${door}/admin/login/`);
    const token = this.#cookies.get("csrftoken") ?? "";
    const body = new URLSearchParams({
      csrfmiddlewaretoken: token,
      username: "ada",
      password: "lovelace",
      next: "/admin/",
    });
    const { status, headers } = await this.ask(`${door}/admin/login/`, { method: "POST", body });
    return [status, headers.get("location")];
  }

  async visits(door: string): Promise<number> {
    return ((await (await this.ask(`${door}/`)).json()) as { visits: number }).visits;
  }
}

describe.skipIf(lacks("django"))("Django on three nodes behind the front doors", () => {
  test("from an empty disk to the loss of all disks", { timeout: 240_000 }, async () => {
    await using nodes: FrontedNodes = new FrontedNodes((name, port) => {
      const migrate = `test ! -e ${nodes.at(name, ".primary")} && echo ${name} >> ${nodes.at("migrations")}; exec ${peers.django} -m django migrate --noinput`;
      const gunicorn = `${peers.django} -m gunicorn mysite.wsgi --bind 127.0.0.1:${port} --workers 2`;
      return {
        exec: [
          `{ cmd: "sh -c '${migrate}'", on: primary, wait: true }`,
          `{ cmd: "${gunicorn} --worker-tmp-dir ${nodes.at(name)}" }`,
        ],
        env: siteEnvironment("mysite", nodes.db(name)),
      };
    });
    const migrated = (): string[] => readFileSync(nodes.at("migrations"), "utf8").trim().split("\n");
    const acknowledged = new Map<string, string>();
    const write = async (key: string, door: string): Promise<number> => {
      const response = await fetch(`${door}/entries`, {
        method: "POST",
        headers: { "sluice-durability": "store" },
        body: JSON.stringify({ key, value: `of ${key}` }),
        signal: AbortSignal.timeout(LIMIT_MS),
      });
      if (response.status === 201) acknowledged.set(key, `of ${key}`);
      return response.status;
    };
    const lacking = async (name: string): Promise<string[]> => {
      const missing: string[] = [];
      for (const [key, value] of acknowledged) {
        const response = await fetch(`${nodes.door(name)}/entries/${key}`);
        const found = response.status === 200 ? ((await response.json()) as { value: string }).value : response.status;
        if (found !== value) missing.push(`${key}: ${found}`);
      }
      return missing;
    };

    // One machine, which goes; its disk, too.
    await nodes.up(["a"], "/totals");
    expect(migrated()).toEqual(["a"]);
    const superuser = ["createsuperuser", "--noinput", "--username", "ada", "--email", "ada@example.org"];
    const env = { ...siteEnvironment("mysite", nodes.db("a")), DJANGO_SUPERUSER_PASSWORD: "lovelace" };
    await run(peers.django, ["-m", "django", ...superuser], { env });
    expect(await write("first", nodes.door("a"))).toBe(201);
    expect(await nodes.stop("a")).toBe(0);
    nodes.loseDisk("a");

    // Three start with empty disks: restored, and migrated by the primary alone.
    await nodes.up(names, "/totals");
    const primary = await nodes.primary(names);
    expect(migrated()).toEqual(["a", primary]);
    await nodes.allFollow(names);
    for (const name of names) expect(await lacking(name), name).toEqual([]);

    // Through one replica, and read on the other: an entry, a login, a session that a GET writes.
    const [one = "", other = ""] = names.filter((name) => name !== primary);
    expect(await write("second", nodes.door(one))).toBe(201);
    const browser = new Browser();
    expect(await browser.logIn(nodes.door(one))).toEqual([302, "/admin/"]);
    expect((await browser.ask(`${nodes.door(other)}/admin/`)).status).toBe(200);
    for (let i = 1; i <= 5; i++) expect(await browser.visits(nodes.door(i % 2 === 0 ? one : other))).toBe(i);

    // A fourth machine comes.
    await nodes.up(["d"], "/totals");
    expect(await lacking("d")).toEqual([]);
    expect(await browser.visits(nodes.door("d"))).toBe(6);
    expect(await write("third", nodes.door("d"))).toBe(201);
    expect(migrated()).toEqual(["a", primary]);

    // The primary is lost, with its disk; the others go on.
    await nodes.lose(primary);
    nodes.loseDisk(primary);
    const left = [one, other, "d"];
    for (const [i, name] of left.entries())
      await expect.poll(() => write(`later-${i}`, nodes.door(name)), { timeout: LIMIT_MS }).toBe(201);
    const next = await nodes.primary(left);
    expect(left).toContain(next);
    expect(await browser.visits(nodes.door(one))).toBe(7);

    await expect.poll(migrated, { timeout: LIMIT_MS }).toEqual(["a", primary, next]);

    // Everything is lost but the store.
    await Promise.all(left.map((name) => nodes.lose(name)));
    for (const name of left) nodes.loseDisk(name);
    await nodes.up(names, "/totals");
    for (const name of names) {
      await expect.poll(() => write(`last-${name}`, nodes.door(name)), { timeout: LIMIT_MS }).toBe(201);
    }
    await nodes.allFollow(names);
    for (const name of names) await expect.poll(() => lacking(name), { timeout: LIMIT_MS }).toEqual([]);
    expect(acknowledged.size).toBe(9);
    expect(await browser.visits(nodes.door("c"))).toBeGreaterThan(6);
    expect(migrated()).toEqual(["a", primary, next, await nodes.primary(names)]);
  });
});

import { rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import Sqlite from "better-sqlite3";
import { expect, test } from "vitest";
import { restore } from "../../src/log/restore.ts";
import { DirectoryStore } from "../../src/store/directory.ts";
import { Place } from "../cli/sluice.ts";
import { until } from "../database/apps.ts";
import { freePort } from "./site.ts";

const APP = path.resolve(import.meta.dirname, "../apps/web.ts");

/** Asks again and again, one after the other, until `stop`; keeps what it was answered. */
class Visitor {
  readonly name: string;
  readonly statuses: number[] = [];
  readonly durable = new Set<string | null>();
  readonly positions: string[] = [];
  #stopped = false;
  readonly #running: Promise<void>;

  constructor(name: string, door: string) {
    this.name = name;
    this.#running = this.#run(door);
  }

  get count(): number {
    return this.statuses.length;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  async #run(door: string): Promise<void> {
    for (let i = 0; !this.#stopped; i++) {
      const response = await fetch(`${door}/${this.name}-${i}`, {
        method: "POST",
        headers: { "sluice-durability": i % 2 === 0 ? "store" : "local" },
      });
      await response.text();
      this.statuses.push(response.status);
      this.durable.add(response.headers.get("sluice-durable"));
      const [position = ""] = /[0-9a-f]{16}/.exec(response.headers.get("sluice-position") ?? "") ?? [];
      this.positions.push(position);
    }
  }
}

test("run over run: both applications and both front doors go on, and what either confirms is in the store", async () => {
  await using place = new Place();
  const db = place.path("app.db");
  const start = async (name: string): Promise<{ door: string; sluice: Awaited<ReturnType<Place["start"]>> }> => {
    const [door, app] = [await freePort(), await freePort()];
    const config = place.path(`${name}.yml`);
    const lines = [
      `dbs: [{ path: ${db}, store: "${place.store}" }]`,
      `proxy: { listen: "127.0.0.1:${door}", app: "http://127.0.0.1:${app}" }`,
      `exec: [{ cmd: "${process.execPath} ${APP} ${db} ${app}" }]`,
    ];
    writeFileSync(config, `${lines.join("\n")}\n`);
    const sluice = await place.start('"level"', "run", "--config", config);
    const url = `http://127.0.0.1:${door}`;
    const answers = async (): Promise<boolean> => (await fetch(url).catch(() => undefined))?.status === 200;
    await expect.poll(answers, { timeout: 30_000 }).toBe(true);
    return { door: url, sluice };
  };

  const first = await start("first");
  const old = new Visitor("old", first.door);
  await until(() => old.count >= 20, "visits", 30_000);
  const second = await start("second");
  await first.sluice.said('"message":"succeeded"');
  const fresh = new Visitor("new", second.door);
  const { count } = old;
  await until(() => old.count >= count + 20 && fresh.count >= 20, "visits of both", 30_000);

  const status = await (await fetch(`${first.door}/.sluice/ready`)).text();
  expect(status).not.toContain("succeeded is");
  await old.stop();
  expect(await first.sluice.end("SIGTERM")).toBe(143);
  const after = fresh.count;
  await until(() => fresh.count >= after + 10, "visits of the new one alone", 30_000);
  await fresh.stop();
  expect(await second.sluice.end("SIGTERM")).toBe(143);

  for (const visitor of [old, fresh]) {
    expect(new Set(visitor.statuses), visitor.name).toEqual(new Set([200]));
    expect(visitor.durable).toEqual(new Set(["store", "local"]));
    // Until the first Sluice has opened the database that the application makes, there is none.
    const positions = visitor.positions.filter((position) => position !== "");
    expect(positions).toEqual(positions.toSorted());
    expect(positions.length).toBeGreaterThan(visitor.count / 2);
  }
  const copy = place.path("copy.db");
  rmSync(copy, { force: true });
  await restore({ store: new DirectoryStore(place.path("store")), prefix: "", path: copy });
  const rows = new Sqlite(copy, { readonly: true });
  expect(rows.prepare("select count(distinct who) from visit").pluck().get()).toBe(old.count + fresh.count);
  rows.close();
});

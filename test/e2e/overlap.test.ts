import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { Overlapping } from "./overlapping.ts";
import type { StopPoint } from "./stop-at-message.ts";

const PASS = '"do":"pass"';
const TAKEN = '"do":"taken"';
/** The second answer of the first Sluice: the lock is free. */
const OFFER = String.raw`"answer":2\b`;

test("a second Sluice takes over while applications write: every commit is captured, none fails", async () => {
  await using host = new Overlapping();
  const first = await host.protecting();
  host.write("a", "b");
  await host.more(500);
  const second = await host.protecting();
  await first.said('"message":"succeeded"');
  expect(second.output).toContain('"how":"in-step"');
  await host.more(500);
  expect(await first.end("SIGTERM")).toBe(0);
  await host.more(200);
  // And once more, over the one that has taken over.
  const third = await host.protecting();
  await second.said('"message":"succeeded"');
  await host.more(200);
  const { made, failures } = await host.finish();
  expect(await third.end("SIGTERM")).toBe(0);
  expect(await second.end("SIGTERM")).toBe(0);
  expect(failures).toEqual([]);
  expect(host.rows).toBe(made);
  expect(await host.stored()).toEqual({ named: made, rows: made });
});

const kills: readonly { name: string; who: "first" | "second"; at: StopPoint }[] = [
  { name: "the successor, before it asks for the lock", who: "second", at: kill("sent", PASS, "before") },
  { name: "the successor, offered the lock", who: "second", at: kill("received", OFFER, "before") },
  { name: "the successor, before it says that it has it", who: "second", at: kill("sent", TAKEN, "before") },
  { name: "the successor, when it has said so", who: "second", at: kill("sent", TAKEN, "after") },
  { name: "the predecessor, asked for the lock", who: "first", at: kill("received", PASS, "before") },
  { name: "the predecessor, before it says that the lock is free", who: "first", at: kill("sent", OFFER, "before") },
  { name: "the predecessor, when it has said so", who: "first", at: kill("sent", OFFER, "after") },
  { name: "the predecessor, told that it's taken", who: "first", at: kill("received", TAKEN, "before") },
];

function kill(on: StopPoint["on"], line: string, when: StopPoint["when"]): StopPoint {
  return { on, line, when, signal: "SIGKILL" };
}

describe("killed: the other one has the database, and the log every commit", () => {
  test.for(kills)("$name", async ({ who, at }) => {
    await using host = new Overlapping();
    const first = await host.protecting(undefined, who === "first" ? at : undefined);
    host.write("a");
    await host.more(100);
    const second = host.sluice(undefined, who === "second" ? at : undefined);
    const [victim, survivor] = who === "first" ? [first, second] : [second, first];
    await gone(victim);
    if (survivor === second) await second.said('"message":"protected"');
    await host.more(300);
    const synced = await host.place.sluice("sync", host.db);
    expect(synced.status, `${synced.stderr}\n${survivor.output}`).toBe(0);
    const { made, failures } = await host.finish();
    expect(await survivor.end("SIGTERM")).toBe(0);
    expect(failures).toEqual([]);
    expect(host.rows).toBe(made);
    expect((await host.stored()).rows, `${first.output}\n${second.output}`).toBe(made);
  });
});

async function gone({ child }: { child: { exitCode: number | null; signalCode: string | null } }): Promise<void> {
  await expect.poll(() => child.signalCode, { timeout: 30_000 }).toBe("SIGKILL");
}

test("a successor that hangs before it takes the lock: the first one goes on, and passes the database on later", async () => {
  await using host = new Overlapping();
  const first = await host.protecting();
  host.write("a");
  await host.more(100);
  const second = host.sluice(undefined, { on: "received", line: OFFER, when: "before", signal: "SIGSTOP" });
  await first.said('"outcome":"kept"');
  await host.more(300);
  expect(host.commits.longestMs).toBeLessThan(5_000);
  expect(first.output.split('"message":"protected"').length).toBeGreaterThan(2);
  second.child.kill("SIGCONT");
  await second.said('"message":"protected"');
  await first.said('"message":"succeeded"');
  const { made, failures } = await host.finish();
  expect(await second.end("SIGTERM")).toBe(0);
  expect(failures).toEqual([]);
  expect(await host.stored()).toEqual({ named: made, rows: made });
});

test("the successor is stopped: the first one takes the database back", async () => {
  await using host = new Overlapping();
  const first = await host.protecting();
  host.write("a");
  const second = await host.protecting();
  await first.said('"message":"succeeded"');
  await host.more(100);
  expect(await second.end("SIGTERM")).toBe(0);
  await expect.poll(() => first.output.split('"message":"protected"').length, { timeout: 30_000 }).toBe(3);
  await host.more(100);
  const { made } = await host.finish();
  expect(await first.end("SIGTERM")).toBe(0);
  expect((await host.stored()).rows).toBe(made);
});

test("--no-takeover and replicate --once refuse; another store, too: nothing changes", async () => {
  await using host = new Overlapping();
  const first = await host.protecting();
  const note = readFileSync(host.place.path(".app.db-sluice/owner.json"), "utf8");
  const { place, db } = host;
  for (const args of [
    ["replicate", "--no-takeover", db, place.store],
    ["run", "--no-takeover", "--db", db, "--store", place.store],
    ["run", "--no-takeover", "--db", db, "--store", place.store, "--", "true"],
    ["replicate", "--once", db, place.store],
  ]) {
    const { status, stdout, stderr } = await place.sluice(...args);
    expect({ status, code: /SLU-\d+/.exec(stdout + stderr)?.[0] }, args.join(" ")).toEqual({
      status: 1,
      code: "SLU-6004",
    });
  }
  const other = await place.sluice("replicate", db, `${place.store}-2`);
  expect(other.status).toBe(1);
  expect(other.stdout + other.stderr).toContain("SLU-6012");
  expect(readFileSync(host.place.path(".app.db-sluice/owner.json"), "utf8")).toBe(note);
  expect((await place.sluice("sync", db)).status).toBe(0);
  expect(await first.end("SIGTERM")).toBe(0);
});

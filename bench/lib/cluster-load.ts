import { mkdirSync } from "node:fs";
import path from "node:path";
import Database from "better-sqlite3";
import type { Nodes } from "../../test/e2e/nodes.ts";
import { root, run, writer } from "./processes.ts";

/** An application beside a node of a cluster; its one line of JSON. */
export async function app<T>(what: string, db: string, ...args: readonly number[]): Promise<T> {
  const out = await run("python3", [path.join(root, "bench/apps/replica.py"), what, db, ...args.map(String)]);
  return JSON.parse(out) as T;
}

/** A primary `a` with a database of about that size, protected. */
export async function lead(nodes: Nodes, megabytes: number): Promise<void> {
  mkdirSync(nodes.at("a"), { recursive: true });
  await writer("init", nodes.db("a"), megabytes);
  await nodes.start("a");
  await nodes.reaches("a", "protected");
}

export async function follow(nodes: Nodes, ...names: readonly string[]): Promise<void> {
  for (const name of names) {
    await nodes.start(name);
    await nodes.reaches(name, "following");
  }
}

/** Until the replica shows what the primary committed last to `log`. */
export async function shown(nodes: Nodes, name: string): Promise<void> {
  const [wanted, ...rest] = ["a", name].map((node) => new Database(nodes.db(node), { readonly: true }));
  const newest = "select max(id) from log";
  const id = wanted!.prepare(newest).pluck().get() as number;
  const statement = rest[0]!.prepare(newest).pluck();
  while ((statement.get() as number) < id) await new Promise((done) => setTimeout(done, 2));
  for (const db of [wanted!, ...rest]) db.close();
}

/** Commits at a rate on the primary; how long after each another process sees it on a replica, in ms. */
export async function visibleMs(nodes: Nodes, name: string, seconds: number, rate: number): Promise<number[]> {
  const [first = 0] = await app<number[]>("newest", nodes.db("a"));
  const watching = app<[number, number][]>("watch", nodes.db(name), first + rate * seconds);
  const commits = await app<[number, number][]>("commit", nodes.db("a"), seconds, rate);
  const seen = await watching;
  let look = 0;
  return commits.map(([id, at]) => {
    while (seen[look]![0] < id) look++;
    return seen[look]![1] - at;
  });
}

import { cpSync, mkdirSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import type { KeeperClass } from "./cluster.ts";

type Change = readonly [file: string, from: string, to: string];

/** Wrong versions of the keeper, each without one rule of protocol section 8. */
export const mutants: Readonly<Record<string, readonly Change[]>> = {
  "the deadline counts from the answer": [
    ["exchange.ts", "version: answer.version, sentMs }", "version: answer.version, sentMs: this.#clock.bootMs() }"],
  ],
  "own bytes that are found count from then": [
    ["exchange.ts", "version: seen.version, sentMs }", "version: seen.version, sentMs: this.#clock.bootMs() }"],
  ],
  "an observer counts from the sending of its read": [
    [
      "keeper.ts",
      "const read = await this.#exchange.read();\n    if (read !== undefined) this.#observe(read.seen);",
      `const askedMs = this.#clock.bootMs();
      const read = await this.#exchange.read();
      if (read !== undefined) {
        this.#observe(read.seen);
        const { seen, sinceMs } = this.#observation!;
        this.#observation = { seen, sinceMs: Math.min(askedMs, sinceMs) };
      }`,
    ],
  ],
  "an observer counts by its own ttl": [["timing.ts", "sinceMs + record.ttlMs", "sinceMs + 3_000"]],
  "a renewal changes nothing": [
    ["keeper.ts", "{ ...held.record, counter: this.#nextCounter(held.record) }", "held.record"],
    ["exchange.ts", "isSameWrite(seen.record, next)", "isSameWrite(seen.record, next) && seen.version !== expected"],
  ],
  "bytes are used again": [
    ["keeper.ts", "Math.max(this.#counter, record?.counter ?? 0) + 1", "(record?.counter ?? 0) + 1"],
  ],
  "an older record of one's own counts for the one under way": [
    ["record.ts", " && a.counter === b.counter", ""],
    ["record.ts", " && a.generation === b.generation", ""],
  ],
  "another life's record counts as one's own": [
    ["record.ts", "a.nodeId === b.nodeId && a.life === b.life && a.counter === b.counter", "a.counter === b.counter"],
  ],
  "the deadline is left to the timer": [
    ["keeper.ts", "if (this.#clock.bootMs() >= held.deadlineMs) this.#end", "if (timed) this.#end"],
    ["keeper.ts", "#isWithin(): boolean {", "#isWithin(timed = false): boolean {"],
    ["keeper.ts", "if (this.#isWithin()) this.#armDeadline();", "this.#isWithin(true);"],
  ],
  "a late answer reopens": [
    [
      "keeper.ts",
      '(held.version, record, () => this.#isWithin());\n    if (!this.#isWithin()) return;\n    if (written.result === "own") this.#adopt',
      '(held.version, record, () => true);\n    if (written.result === "own") this.#adopt',
    ],
    [
      "keeper.ts",
      "    this.#exchange.interrupt();\n    this.#poke();\n    this.#options.events.lost",
      "    this.#poke();\n    this.#options.events.lost",
    ],
  ],
  "a holder that hands over holds on": [
    ["keeper.ts", "return this.#isWithin() && this.#leaving === undefined;", "return this.#isWithin();"],
  ],
};

const sources = path.resolve(import.meta.dirname, "../../../src");
const modules = path.resolve(import.meta.dirname, "../../../node_modules");

/** A directory for mutants; the caller removes it. */
export function mutantDirectory(): string {
  return mkdtempSync(path.join(os.tmpdir(), "sluice-lease-mutants-"));
}

/** The keeper with these changes made to its source; throws when a place to change is not there any more. */
export async function mutate(dir: string, changes: readonly Change[]): Promise<KeeperClass> {
  const root = mkdtempSync(path.join(dir, "mutant-"));
  mkdirSync(path.join(root, "src"));
  for (const room of ["errors", "store", "config", "sqlite", "observe"]) {
    symlinkSync(path.join(sources, room), path.join(root, "src", room));
  }
  symlinkSync(modules, path.join(root, "node_modules"));
  cpSync(path.join(sources, "lease"), path.join(root, "src/lease"), { recursive: true });
  for (const [name, from, to] of changes) {
    const file = path.join(root, "src/lease", name);
    const source = readFileSync(file, "utf8");
    if (!source.includes(from)) throw new Error(`${name} has no "${from}" to change`);
    writeFileSync(file, source.replace(from, to));
  }
  const module = (await import(/* @vite-ignore */ pathToFileURL(path.join(root, "src/lease/keeper.ts")).href)) as {
    LeaseKeeper: KeeperClass;
  };
  return module.LeaseKeeper;
}

import { cpSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import type { ClusterWorld, WorldOptions } from "./world.ts";

/** `file` below `src/`. */
type Change = readonly [file: string, from: string, to: string];

interface Mutant {
  readonly changes: readonly Change[];
  /** Where it was found first; a change of the simulation may move that. */
  readonly seed: number;
}

/** Wrong versions of the source, each without one rule of the protocol; the simulation has to see the damage. */
export const mutants: Readonly<Record<string, Mutant>> = {
  "an append that was refused counts as the own one": {
    seed: 85,
    changes: [["log/append.ts", '\n      return held === "same" ? "own" : "lost";', '\n      return "own";']],
  },
  "an append has no condition": {
    seed: 24,
    changes: [["log/append.ts", '{ condition: "absent", ', "{ "]],
  },
  "an append without an answer counts": {
    seed: 2,
    changes: [["log/append.ts", 'if (answer.outcome === "written")', 'if (answer.outcome !== "refused")']],
  },
  "waiters are told yes when the log is lost": {
    seed: 3,
    changes: [["log/shipper.ts", "waiter.reject(unknown)", "(waiter.resolve(), unknown)"]],
  },
  "a gate opens before the takeover is in the log": {
    seed: 1,
    changes: [
      [
        "cluster/cluster.ts",
        'Promise.race([database.become("primary"), aborted(late)])',
        'void database.become("primary").catch(() => undefined)',
      ],
      [
        "cluster/cluster.ts",
        "signal.throwIfAborted();",
        "await new Promise((resolve) => void this.#clock.schedule(100, () => resolve(undefined)));",
      ],
      ["cluster/protected-database.ts", 'if (this.#state === "protected") this.#engine', "this.#engine"],
    ],
  },
  "a takeover for an earlier role counts for the present one": {
    seed: 50,
    changes: [
      ["cluster/protected-database.ts", "if (turn.aborted && !this.isStopped) return this.#keep();", ""],
      ["cluster/protected-database.ts", "if (!turn.aborted) this.#reached", "this.#reached"],
    ],
  },
  "a writer that was passed ends the next role, too": {
    seed: 85,
    changes: [
      [
        "cluster/protected-database.ts",
        "[this.#engine.lost, follow",
        "[this.#writerEnded.promise, this.#engine.lost, follow",
      ],
    ],
  },
  "a gate stays open when the lease is lost": {
    seed: 1,
    changes: [
      [
        "cluster/cluster.ts",
        "await Promise.all(open.map((database) => closeGate(",
        "await Promise.all(open.slice(1).map((database) => closeGate(",
      ],
    ],
  },
  "a gate opens whatever the lease says": {
    seed: 23,
    changes: [
      [
        "cluster/roles.ts",
        "signal.throwIfAborted();\n    if (!this.#options.keeper.isHeld())",
        "if (this.#abort.signal.aborted)",
      ],
    ],
  },
  "a member has what was sent to it": {
    seed: 4,
    changes: [
      [
        "cluster/stream-peers.ts",
        "applied: acks.get(name, life)?.position,",
        "applied: acks.get(name, life) && this.#published.get(name)?.feed.position,",
      ],
    ],
  },
  "one replica's word is enough, whomever the records name": {
    seed: 57,
    changes: [
      [
        "cluster/members.ts",
        "candidates.find((candidate) => candidate.member === member)",
        "candidates.find((candidate) => candidate.applied !== undefined)",
      ],
    ],
  },
  "a record that names nobody has no say": {
    seed: 73,
    changes: [
      ["cluster/members.ts", "if (members.length === 0) return stored;", "if (members.length === 0) continue;"],
    ],
  },
  "only the members of the record under way have a say": {
    seed: 73,
    changes: [["cluster/members.ts", "of named) {", "of named.slice(-1)) {"]],
  },
  "who is no member takes over": {
    seed: 49,
    changes: [["cluster/members.ts", "|| options.isForced()) return;", "|| true) return;"]],
  },
  "a winner asks nobody what it has more": {
    seed: 44,
    changes: [["cluster/protected-database.ts", "await cluster.upstream.fetchAhead(this.name, replica, turn);", ""]],
  },
  "commits that leave the history are not kept": {
    seed: 2,
    changes: [
      [
        "log/place.ts",
        "const quarantine = replica.position !== undefined && replica.position !== replica.record?.position;",
        "const quarantine = false;",
      ],
    ],
  },
};

const root = path.resolve(import.meta.dirname, "../../..");

/** A directory for mutants; the caller removes it. */
export function mutantDirectory(): string {
  return mkdtempSync(path.join(os.tmpdir(), "sluice-cluster-mutants-"));
}

export type WorldClass = new (options: WorldOptions) => ClusterWorld;

/** The simulation on a source with these changes; throws when a place to change is not there any more. */
export async function mutate(dir: string, changes: readonly Change[]): Promise<WorldClass> {
  const copy = mkdtempSync(path.join(dir, "mutant-"));
  for (const part of ["src", "test/cluster/sim", "test/log/sim"]) {
    cpSync(path.join(root, part), path.join(copy, part), { recursive: true });
  }
  for (const part of ["node_modules", "package.json"]) symlinkSync(path.join(root, part), path.join(copy, part));
  for (const [name, from, to] of changes) {
    const file = path.join(copy, "src", name);
    const source = readFileSync(file, "utf8");
    if (!source.includes(from)) throw new Error(`${name} has no "${from}" to change`);
    writeFileSync(file, source.replace(from, to));
  }
  const url = pathToFileURL(path.join(copy, "test/cluster/sim/world.ts")).href;
  return ((await import(/* @vite-ignore */ url)) as { ClusterWorld: WorldClass }).ClusterWorld;
}

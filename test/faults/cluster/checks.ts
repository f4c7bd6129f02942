import { existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import Sqlite from "better-sqlite3";
import { sluiceCommand } from "../../e2e/site.ts";
import type { Clients } from "./clients.ts";
import { type FaultyNode, LIMIT_MS } from "./nodes.ts";

/** One primary, all others in step with it, once what was still ending is started again. Returns the primary; throws with everybody's status. */
export async function inStep(nodes: readonly FaultyNode[]): Promise<FaultyNode> {
  for (const end = Date.now() + LIMIT_MS; ; await delay(50)) {
    for (const node of nodes) {
      if (!node.isOver) continue;
      await node.over();
      node.start();
    }
    const all = await Promise.all(nodes.map((node) => node.status()));
    const leads = nodes.filter((_, i) => all[i]?.role === "primary");
    const positions = new Set(all.map((status) => status?.databases[0]?.position));
    const follow = all.filter((status) => status?.databases[0]?.state === "following").length;
    const isGood = follow === nodes.length - 1 && positions.size === 1;
    if (leads.length === 1 && isGood) return leads[0]!;
    if (Date.now() > end) throw new Error(`not in step: ${JSON.stringify(all, undefined, 1)}`);
  }
}

/** All entries of a database; throws when SQLite finds it damaged. */
function entriesOf(file: string, table: string): Map<string, string> {
  const db = new Sqlite(file, { readonly: true, timeout: 5_000 });
  try {
    const found = db.pragma("integrity_check", { simple: true });
    if (found !== "ok") throw new Error(`${file}: ${String(found)}`);
    const rows = db.prepare(`select key, value from ${table}`).raw().all() as [string, string][];
    return new Map(rows);
  } finally {
    db.close();
  }
}

async function mustRun(...args: readonly string[]): Promise<string> {
  const { status, stdout, stderr } = await sluiceCommand(...args);
  if (status !== 0) throw new Error(`sluice ${args.join(" ")}: ${stderr}`);
  return stdout;
}

/** What nobody may write: says how the application of a replica is refused. */
function writeOn(file: string): string {
  const db = new Sqlite(file, { timeout: 100 });
  try {
    db.exec("create table if not exists written_on_a_replica(x)");
    return "committed";
  } catch (error) {
    return (error as Error).message;
  } finally {
    db.close();
  }
}

/** Entries that lie in a quarantine of these nodes. Each piece is looked at once. */
async function quarantined(nodes: readonly FaultyNode[], { scratch, known, table }: CheckOptions) {
  const keys = new Set<string>();
  for (const node of nodes) {
    const dir = path.join(node.dir, ".app.db-sluice/quarantine");
    if (!existsSync(dir) || readdirSync(dir).length === 0) continue;
    const list = await mustRun("quarantine", "list", "--json", "--config", node.config);
    for (const { id } of JSON.parse(list) as { id: string }[]) {
      const out = path.join(scratch, `${node.name}-${id}.db`);
      let inIt = known.get(out);
      if (inIt === undefined) {
        rmSync(out, { force: true });
        await mustRun("quarantine", "extract", id, "-o", out, "--config", node.config);
        inIt = new Set(entriesOf(out, table).keys());
        known.set(out, inIt);
        rmSync(out, { force: true });
      }
      for (const key of inIt) keys.add(key);
    }
  }
  return keys;
}

export interface CheckOptions {
  readonly table: string;
  readonly scratch: string;
  readonly lostDisk: boolean;
  /** What is in the pieces of quarantine that were looked at. */
  readonly known: Map<string, Set<string>>;
  /** Entries that were acknowledged at `local` and lost in an earlier round. */
  readonly forgiven: Set<string>;
}

export interface Verdict {
  readonly problems: readonly string[];
  /** Acknowledged at `local`, lost, and found in a quarantine. */
  readonly inQuarantine: number;
  /** The same, not found, where a disk was lost. */
  readonly lostWithDisk: number;
  readonly entries: number;
}

/** Everything that must be true after a round, when all is healed and nobody writes. */
export async function check(nodes: readonly FaultyNode[], clients: Clients, options: CheckOptions): Promise<Verdict> {
  const problems = clients.stale.splice(0).map((one) => `stale: ${one}`);
  const primary = await inStep(nodes);
  await mustRun("sync", primary.db, "--config", primary.config, "--timeout", "30s");
  mkdirSync(options.scratch, { recursive: true });
  const restored = path.join(options.scratch, "restored.db");
  rmSync(restored, { force: true });
  await mustRun("restore", "-o", restored, "--config", primary.config, primary.db);
  const places = new Map([...nodes.map((node) => [node.name, node.db] as const), ["the store", restored] as const]);
  let first: [string, Map<string, string>] | undefined;
  for (const [name, file] of places) {
    const there = entriesOf(file, options.table);
    first ??= [name, there];
    const differing = [...there].filter(([key, value]) => first?.[1].get(key) !== value).length;
    if (there.size !== first[1].size || differing > 0) {
      problems.push(`${name} has ${there.size} entries, ${first[0]} has ${first[1].size}, ${differing} are others`);
    }
    for (const [key, { value, level, at }] of clients.acknowledged) {
      if (level !== "local" && there.get(key) !== value) problems.push(`${name} has lost ${key}, of ${at}`);
    }
  }
  rmSync(restored, { force: true });
  for (const key of first![1].keys()) if (!clients.sent.has(key)) problems.push(`nobody has sent ${key}`);
  const missing = [...clients.acknowledged.keys()].filter(
    (key) => !first![1].has(key) && clients.acknowledged.get(key)!.level === "local" && !options.forgiven.has(key),
  );
  const kept = missing.length === 0 ? new Set<string>() : await quarantined(nodes, options);
  let [inQuarantine, lostWithDisk] = [0, 0];
  for (const key of missing) {
    options.forgiven.add(key);
    if (kept.has(key)) inQuarantine++;
    else if (options.lostDisk) lostWithDisk++;
    else problems.push(`${key}, acknowledged at local, is in no quarantine: ${clients.acknowledged.get(key)!.at}`);
  }
  for (const node of nodes.filter((one) => one !== primary)) {
    const said = writeOn(node.db);
    if (!said.includes("database is locked")) problems.push(`the gate of ${node.name}: ${said}`);
  }
  return { problems, inQuarantine, lostWithDisk, entries: first![1].size };
}

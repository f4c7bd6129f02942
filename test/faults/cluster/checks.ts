import { existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import Sqlite from "better-sqlite3";
import { sluiceCommand } from "../../e2e/site.ts";
import type { Clients } from "./clients.ts";
import { type FaultyNode, LIMIT_MS, type Status } from "./nodes.ts";

/** So often the places are looked at anew. */
const AGAIN = 3;

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
    // One that is ending follows to its last moment.
    const isFollowing = (status: Status | undefined): boolean =>
      status?.state === "following" && status.databases[0]?.state === "following";
    const follow = all.filter(isFollowing).length;
    const isGood = follow === nodes.length - 1 && positions.size === 1;
    if (leads.length === 1 && isGood) return leads[0]!;
    if (Date.now() > end) throw new Error(`not in step: ${JSON.stringify(all, undefined, 1)}`);
  }
}

/** All entries of a database; throws when SQLite finds it damaged. */
export function entriesOf(file: string, table: string): Map<string, string> {
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

/** The entries of each node, and of a restore out of the store, once everything is there. */
async function entriesByPlace(
  nodes: readonly FaultyNode[],
  primary: FaultyNode,
  { scratch, table }: CheckOptions,
): Promise<ReadonlyMap<string, Map<string, string>>> {
  await mustRun("sync", primary.db, "--config", primary.config, "--timeout", "30s");
  mkdirSync(scratch, { recursive: true });
  const restored = path.join(scratch, "restored.db");
  rmSync(restored, { force: true });
  await mustRun("restore", "-o", restored, "--config", primary.config, primary.db);
  const found = new Map(nodes.map((node) => [node.name, entriesOf(node.db, table)] as const));
  found.set("the store", entriesOf(restored, table));
  rmSync(restored, { force: true });
  return found;
}

function differences(places: ReadonlyMap<string, Map<string, string>>): string[] {
  const [[firstName, first] = ["", new Map<string, string>()]] = places;
  return [...places].flatMap(([name, there]) => {
    const others = [...there].filter(([key, value]) => first.get(key) !== value).length;
    const isSame = there.size === first.size && others === 0;
    return isSame ? [] : [`${name} has ${there.size} entries, ${firstName} has ${first.size}, ${others} are others`];
  });
}

/** Everything that must be true after a round, when all is healed and nobody writes. */
export async function check(nodes: readonly FaultyNode[], clients: Clients, options: CheckOptions): Promise<Verdict> {
  const problems = clients.stale.splice(0).map((one) => `stale: ${one}`);
  const primary = await inStep(nodes);
  let places = await entriesByPlace(nodes, primary, options);
  // A write that its client gave up may have come meanwhile, out of a front door that was cut off.
  for (let again = 0; again < AGAIN && differences(places).length > 0; again++)
    places = await entriesByPlace(nodes, await inStep(nodes), options);
  problems.push(...differences(places));
  for (const [name, there] of places)
    for (const [key, { value, level, at }] of clients.acknowledged)
      if (level !== "local" && there.get(key) !== value) problems.push(`${name} has lost ${key}, of ${at}`);
  const first = places.get(nodes[0]!.name)!;
  for (const key of first.keys()) if (!clients.sent.has(key)) problems.push(`nobody has sent ${key}`);
  const { missing, inQuarantine, lostWithDisk } = await locallyLost(nodes, clients, first, options);
  problems.push(...missing);
  for (const node of nodes) {
    // Who is ending, or has just become the primary, has no gate that could be closed.
    if ((await node.status())?.state !== "following") continue;
    const said = writeOn(node.db);
    if (!said.includes("database is locked")) problems.push(`the gate of ${node.name}: ${said}`);
  }
  return { problems, inQuarantine, lostWithDisk, entries: first.size };
}

/** What was acknowledged at `local` alone and isn't there: it must be in a quarantine, unless a disk was lost. */
async function locallyLost(
  nodes: readonly FaultyNode[],
  { acknowledged }: Clients,
  there: ReadonlyMap<string, string>,
  options: CheckOptions,
): Promise<{ missing: string[]; inQuarantine: number; lostWithDisk: number }> {
  const gone = [...acknowledged].filter(
    ([key, { level }]) => level === "local" && !there.has(key) && !options.forgiven.has(key),
  );
  const kept = gone.length === 0 ? new Set<string>() : await quarantined(nodes, options);
  for (const [key] of gone) options.forgiven.add(key);
  const nowhere = gone.filter(([key]) => !kept.has(key));
  const missing = nowhere.map(([key, { at }]) => `${key}, acknowledged at local, is in no quarantine: ${at}`);
  return {
    missing: options.lostDisk ? [] : missing,
    inQuarantine: gone.length - nowhere.length,
    lostWithDisk: options.lostDisk ? nowhere.length : 0,
  };
}

import { setTimeout as sleep } from "node:timers/promises";
import { Ledger, Load } from "./ledger.ts";
import type { DemoNode } from "./node.ts";

/** What was measured and what was checked, a row each. */
export interface Row {
  readonly what: string;
  readonly result: string;
  /** Undefined for a measurement that nothing is expected of. */
  readonly ok?: boolean;
}

export interface Story {
  readonly nodes: readonly DemoNode[];
  readonly say: (text: string) => void;
  readonly row: (row: Row) => void;
}

const LIMIT_MS = 30_000;
const CLIENTS = 6;
const HANDOVERS = 5;
const FIRST_WRITES = 100;

/** The guided tour (docs/cluster.md tells the same in words). Throws when a node doesn't come up. */
export async function tell(story: Story): Promise<void> {
  const { nodes, say } = story;
  const ledger = new Ledger();
  await startAll(story);
  await readYourWrites(story, ledger);
  await losePrimary(story, ledger);
  await handOvers(story, ledger);
  await loseDisk(story, ledger);
  await loseAllDisks(story, ledger);
  say("At the end every acknowledged entry is asked of every node.");
  for (const node of nodes) {
    const missing = await ledger.missing(node.door);
    story.row({ what: `entries on ${node.name}`, result: `${ledger.count}, ${missing} missing`, ok: missing === 0 });
  }
}

async function startAll({ nodes, say, row }: Story): Promise<void> {
  const [first, ...others] = nodes as [DemoNode, ...DemoNode[]];
  say(`${nodes.length} nodes start, each with its own disk, all with one store: a directory. Nothing else runs.`);
  const startedMs = performance.now();
  await first.start();
  await first.ready();
  // The application makes its database with the first entry; the others come when there is one.
  await new Ledger().write(first.door);
  await Promise.all(others.map((node) => node.start()));
  await Promise.all(others.map((node) => node.ready()));
  row({ what: "an empty disk → all nodes answer", result: ms(performance.now() - startedMs) });
}

async function readYourWrites({ nodes, say, row }: Story, ledger: Ledger): Promise<void> {
  say("Entries are written through one replica and read on the other, each right after its acknowledgement.");
  const { replicas } = await roles(nodes);
  const [from, to] = [replicas[0]!, replicas[1] ?? replicas[0]!];
  let stale = 0;
  const startedMs = performance.now();
  for (let i = 0; i < FIRST_WRITES; i++) {
    const written = await ledger.write(from.door);
    if (written === undefined || !(await ledger.reads(to.door, written))) stale++;
  }
  const each = (performance.now() - startedMs) / FIRST_WRITES;
  row({ what: `written through ${from.name}, stored, read on ${to.name}`, result: `${each.toFixed(1)} ms each` });
  row({ what: "own writes not seen", result: String(stale), ok: stale === 0 });
  const refused = await fetch(`${from.application}/entries`, { method: "POST", body: '{"key":"x","value":"y"}' });
  row({ what: `a write past the door, on ${from.name}`, result: `refused (${refused.status})`, ok: !refused.ok });
}

async function losePrimary({ nodes, say, row }: Story, ledger: Ledger): Promise<void> {
  const { primary, replicas } = await roles(nodes);
  say(`${primary.name} is the primary. It is killed with SIGKILL while entries are written.`);
  const killedMs = performance.now();
  await primary.end("SIGKILL");
  const doors = replicas.map(({ door }) => door);
  let written;
  for (let i = 0; written === undefined; i++) {
    written = await ledger.write(doors[i % doors.length]!);
    if (performance.now() - killedMs > LIMIT_MS) throw new Error("nobody took over");
  }
  const tookMs = performance.now() - killedMs;
  const { primary: next } = await roles(replicas);
  row({ what: `killed → ${next.name} accepts writes (ttl 2 s)`, result: ms(tookMs), ok: tookMs < 4_000 });
  await primary.start();
  await primary.ready();
  say(`${primary.name} is back, and follows ${next.name}.`);
}

async function handOvers({ nodes, say, row }: Story, ledger: Ledger): Promise<void> {
  say(`${HANDOVERS} handovers, while ${CLIENTS} clients write and read on all nodes.`);
  await inStep(nodes);
  ledger.failed = 0;
  const doors = nodes.map(({ door }) => door);
  const load = new Load(ledger, doors, CLIENTS);
  const took: number[] = [];
  for (let i = 0; i < HANDOVERS; i++) {
    const { replicas } = await roles(nodes);
    const startedMs = performance.now();
    await replicas[i % replicas.length]!.promote();
    took.push(performance.now() - startedMs);
    await inStep(nodes);
    await sleep(300);
  }
  await load.stop();
  row({ what: "a handover", result: `${ms(Math.min(...took))} to ${ms(Math.max(...took))}` });
  row({ what: "the longest a write waited", result: ms(load.longestMs) });
  row({ what: "failed of all requests", result: `${ledger.failed} of ${load.requests}`, ok: ledger.failed === 0 });
  row({ what: "stale reads", result: String(load.stale), ok: load.stale === 0 });
}

async function loseDisk({ nodes, say, row }: Story, ledger: Ledger): Promise<void> {
  const { replicas } = await roles(nodes);
  const node = replicas[0]!;
  say(`The disk of ${node.name} is deleted under it.`);
  await node.end("SIGKILL");
  node.loseDisk();
  const startedMs = performance.now();
  await node.start();
  await node.ready();
  await inStep(nodes);
  row({ what: `an empty disk → ${node.name} is in step again`, result: ms(performance.now() - startedMs) });
  const missing = await ledger.missing(node.door);
  row({ what: `entries missing on ${node.name}`, result: String(missing), ok: missing === 0 });
}

async function loseAllDisks({ nodes, say, row }: Story, ledger: Ledger): Promise<void> {
  say("Everything is killed at once, and all disks are deleted. Only the store is left.");
  await Promise.all(nodes.map((node) => node.end("SIGKILL")));
  for (const node of nodes) node.loseDisk();
  const startedMs = performance.now();
  await Promise.all(nodes.map((node) => node.start()));
  await Promise.all(nodes.map((node) => node.ready()));
  let written;
  for (let i = 0; written === undefined && performance.now() - startedMs < LIMIT_MS; i++) {
    written = await ledger.write(nodes[i % nodes.length]!.door);
  }
  const tookMs = performance.now() - startedMs;
  row({ what: "all disks lost → writes are accepted again", result: ms(tookMs), ok: written !== undefined });
  await inStep(nodes);
}

interface Roles {
  readonly primary: DemoNode;
  readonly replicas: readonly DemoNode[];
}

/** Until exactly one of the nodes is the primary. */
async function roles(nodes: readonly DemoNode[]): Promise<Roles> {
  const endMs = performance.now() + LIMIT_MS;
  for (;;) {
    const states = await Promise.all(nodes.map((node) => node.status()));
    const leads = nodes.filter((_, i) => states[i]?.role === "primary");
    if (leads.length === 1) return { primary: leads[0]!, replicas: nodes.filter((node) => node !== leads[0]) };
    if (performance.now() > endMs) throw new Error(`${leads.length} of the nodes are primary`);
    await sleep(20);
  }
}

/** Until every node has the same position, and the primary knows all others as connected. */
async function inStep(nodes: readonly DemoNode[]): Promise<void> {
  const endMs = performance.now() + LIMIT_MS;
  for (;;) {
    const states = await Promise.all(nodes.map((node) => node.status()));
    const primary = states.find((state) => state?.role === "primary");
    const close = primary?.replicas?.filter(({ lagMs }) => lagMs < 1_000).length ?? 0;
    if (close === nodes.length - 1) return;
    if (performance.now() > endMs) throw new Error("the replicas did not catch up");
    await sleep(20);
  }
}

function ms(value: number): string {
  return value < 10_000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`;
}

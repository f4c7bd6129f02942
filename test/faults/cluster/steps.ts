import { setTimeout as delay } from "node:timers/promises";
import { descendants } from "../../../src/supervise/descendants.ts";
import type { Network } from "./network.ts";
import { type FaultyNode, kill } from "./nodes.ts";
import type { FaultyStore } from "./stores.ts";

/** What the faults of a round have at hand. */
export interface Scene {
  readonly nodes: readonly FaultyNode[];
  readonly network: Network;
  readonly store: FaultyStore;
  readonly ttlMs: number;
  readonly next: () => number;
  /** Whether wall clocks can be set. */
  readonly clocks: boolean;
  /** Nodes that lost their disk in this round. */
  readonly wiped: Set<string>;
}

interface Fault {
  readonly name: string;
  readonly run: (node: FaultyNode, scene: Scene) => Promise<string | undefined | void> | string | void;
}

const CLOCK_JUMPS_S = [-3600, -10, 10, 3600];

async function pause(node: FaultyNode, ms: number): Promise<void> {
  node.signal("SIGSTOP");
  await delay(ms);
  node.signal("SIGCONT");
}

async function storeAway(store: FaultyStore, ms: number): Promise<void> {
  store.away();
  await delay(ms);
  store.back();
}

const faults: readonly Fault[] = [
  { name: "kill Sluice", run: (node) => node.signal("SIGKILL") },
  {
    name: "kill Sluice and start it at once",
    run: async (node) => {
      node.signal("SIGKILL");
      await node.over();
      node.start();
    },
  },
  { name: "kill the guardian", run: (node) => kill(node.guardian) },
  {
    name: "kill Sluice and the guardian",
    run: (node) => {
      const { guardian } = node;
      node.signal("SIGKILL");
      kill(guardian);
    },
  },
  {
    name: "kill the application",
    run: (node) => {
      const { guardian } = node;
      for (const pid of descendants(guardian)) kill(pid);
    },
  },
  { name: "pause for less than the ttl", run: (node, { ttlMs }) => pause(node, ttlMs * 0.6) },
  { name: "pause for more than the ttl", run: (node, { ttlMs }) => pause(node, ttlMs * 2) },
  {
    name: "stop and start",
    run: async (node) => {
      node.signal("SIGTERM");
      await node.over();
      node.start();
    },
  },
  { name: "promote", run: (node) => node.promote() },
  { name: "store away for less than the ttl", run: (_, { store, ttlMs }) => storeAway(store, ttlMs * 0.5) },
  { name: "store away for more than the ttl", run: (_, { store, ttlMs }) => storeAway(store, ttlMs * 2) },
  {
    name: "the machine and its disk are lost",
    run: async (node, { wiped }) => {
      if (wiped.size > 0) return "not done: one is enough";
      wiped.add(node.name);
      await node.lose();
      node.start();
      return undefined;
    },
  },
];

const clockFault: Fault = {
  name: "the clock jumps",
  run: (node, { next }) => {
    const off = CLOCK_JUMPS_S[Math.floor(next() * CLOCK_JUMPS_S.length)]!;
    node.clockIs(off);
    return `${off} s off`;
  },
};

function faultsOf({ network, clocks, next }: Scene): readonly Fault[] {
  const cuts = network.faults.map(({ name, run }): Fault => ({ name, run: (node) => run(node.name, next) }));
  return [...faults, ...cuts, ...(clocks ? [clockFault] : [])];
}

/** One fault; a node that is not there is started instead. */
export async function someFault(scene: Scene, tell: (line: string) => void): Promise<void> {
  const { nodes, next } = scene;
  const all = faultsOf(scene);
  const fault = all[Math.floor(next() * all.length)]!;
  // Half of them hit the primary.
  let node = nodes[Math.floor(next() * nodes.length)]!;
  const wantsPrimary = next() < 0.5;
  for (const one of nodes) if (wantsPrimary && (await one.status())?.role === "primary") node = one;
  if (node.isOver && fault.name !== "promote") {
    tell(`${node.name}: start`);
    node.start();
    return;
  }
  tell(`${node.name}: ${fault.name}`);
  const said = await fault.run(node, scene);
  if (said !== undefined) tell(`  ${said.trim()}`);
}

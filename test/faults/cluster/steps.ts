import { renameSync, rmSync, writeFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { descendants } from "../../../src/supervise/descendants.ts";
import { type FaultyNode, kill } from "./nodes.ts";

/** What the faults of a round have at hand. */
export interface Scene {
  readonly nodes: readonly FaultyNode[];
  readonly store: string;
  readonly ttlMs: number;
  readonly next: () => number;
  /** Undoes what lasts, in turn. */
  readonly heal: (() => Promise<void> | void)[];
  /** Nodes that lost their disk in this round. */
  readonly wiped: Set<string>;
}

interface Fault {
  readonly name: string;
  readonly run: (node: FaultyNode, scene: Scene) => Promise<string | undefined | void> | string | void;
}

async function pause(node: FaultyNode, ms: number): Promise<void> {
  node.signal("SIGSTOP");
  await delay(ms);
  node.signal("SIGCONT");
}

/** Others in its place: every request fails. */
function storeAway({ store, heal }: Scene): void {
  renameSync(store, `${store}.away`);
  writeFileSync(store, "");
  heal.push(() => storeBack(store));
}

function storeBack(store: string): void {
  rmSync(store, { recursive: true });
  renameSync(`${store}.away`, store);
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
  {
    name: "store away for less than the ttl",
    run: async (_, scene) => {
      storeAway(scene);
      await delay(scene.ttlMs * 0.5);
      await scene.heal.pop()!();
    },
  },
  {
    name: "store away for more than the ttl",
    run: async (_, scene) => {
      storeAway(scene);
      await delay(scene.ttlMs * 2);
      await scene.heal.pop()!();
    },
  },
  { name: "cut the network to the node", run: (node) => node.link.set("cut") },
  { name: "nothing reaches the node", run: (node) => node.link.set("silent") },
  { name: "the network is back", run: (node) => node.link.set("open") },
  {
    name: "the machine and its disk are lost",
    run: async (node, { wiped }) => {
      if (wiped.size > 0) return "not done: one is enough";
      wiped.add(node.name);
      node.signal("SIGKILL");
      await node.over();
      rmSync(node.dir, { recursive: true });
      node.start();
      return undefined;
    },
  },
];

/** One fault, or two that are under way together; what was done. */
export async function someFault(scene: Scene, tell: (line: string) => void): Promise<void> {
  const { nodes, next } = scene;
  const fault = faults[Math.floor(next() * faults.length)]!;
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
  if (said !== undefined) tell(`  ${said}`);
}

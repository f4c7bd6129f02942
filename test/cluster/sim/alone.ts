import type { Peers } from "../../../src/cluster/peers.ts";

/** Nodes that know each other by the lease and the log only. */
export const alone: Peers = {
  changed: () => undefined,
  follow: () => undefined,
  lagMs: undefined,
  isBehind: false,
  replicas: [],
  awaitReplica: () => Promise.reject(new Error("nobody is connected")),
  callSuccessor: () => undefined,
  close: () => Promise.resolve(),
  attach: () => ({ isJoined: false, failed: new Promise<never>(() => undefined), detach: () => Promise.resolve() }),
  seed: () => Promise.resolve(false),
  fetchAhead: () => Promise.resolve(),
  candidates: () => [],
  onAcknowledged: () => () => undefined,
  isOwnMember: () => false,
};

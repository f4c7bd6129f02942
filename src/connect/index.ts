/**
 * For applications on Node.js behind Sluice's proxy, or Fly.io's: a request that finds out on a replica that it must
 * write is replayed on the primary.
 */
export { NotPrimary, requirePrimary } from "./attempt.ts";
export type { Proxy } from "./answer.ts";
export { fastifySluice } from "./fastify.ts";
export { isReplica, positionOf, primaryOf, type Position } from "./files.ts";
export type { SqliteConnection } from "./guarded.ts";
export { replayErrors, sluice, withSluice, type ConnectOptions, type Handler, type Next } from "./middleware.ts";

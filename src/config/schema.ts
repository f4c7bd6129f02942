import { z } from "zod";
import { duration, size } from "./units.ts";

/** Litestream's settings of a replica, under its names; here a store has them in `store:` or beside a URL. */
const storeSettings = {
  "access-key-id": z.string().optional(),
  "secret-access-key": z.string().optional(),
  "session-token": z.string().optional(),
  region: z.string().optional(),
  endpoint: z.string().optional(),
  bucket: z.string().optional(),
  "force-path-style": z.boolean().optional(),
  "skip-verify": z.boolean().optional(),
  "sign-payload": z.boolean().optional(),
  "storage-class": z.string().optional(),
  "part-size": size.optional(),
  concurrency: z.int().min(1).max(64).optional(),
  "sse-customer-key": z.string().optional(),
  "sse-customer-key-path": z.string().optional(),
  "sse-kms-key-id": z.string().optional(),
};

export const storeObject = z.strictObject({
  type: z.enum(["file", "s3"]).optional(),
  url: z.string().optional(),
  path: z.string().optional(),
  "sync-interval": duration.optional(),
  ...storeSettings,
});

const store = z.union([z.string().min(1), storeObject]);

const db = z.strictObject({
  path: z.string().min(1).optional().describe("The database file."),
  dir: z.string().min(1).optional().describe("A directory whose databases are all protected, also later ones."),
  pattern: z.string().default("*.db").describe("With `dir`: which files, as a glob for their names."),
  recursive: z.boolean().default(false).describe("With `dir`: also in the folders below it."),
  store: store.optional().describe("Where the log is: a URL, or an object with Litestream's keys."),
  replica: store.optional().describe("Litestream's name for `store`."),
  replicas: z.array(store).length(1).optional().describe("Litestream's old spelling: a list of one."),
  "sync-interval": duration.optional().describe("How long a commit may wait before it's sent. Default 1s."),
  "restore-if-db-not-exists": z.boolean().optional().describe("`replicate`: restore a missing database first."),
});

const exec = z.strictObject({
  cmd: z.string().min(1).describe("The command, as plain words; for a shell write sh -c '…'."),
  on: z.enum(["any", "primary", "replica"]).default("any").describe("The role in which it runs."),
  wait: z.boolean().default(false).describe("Run to its end before the next one; a failure stops everything."),
});

/** The whole configuration file; one schema gives types, messages and the reference page. */
export const configSchema = z.strictObject({
  dbs: z.array(db).min(1).describe("The databases to protect."),
  snapshot: z
    .strictObject({
      interval: duration.default(86_400_000).describe("How often the whole database is written to the log."),
      retention: duration.default(86_400_000).describe("How far back one can restore."),
    })
    .prefault({}),
  levels: z
    .array(z.strictObject({ interval: duration }))
    .min(1)
    .max(8)
    .prefault([{ interval: "30s" }, { interval: "5m" }, { interval: "1h" }])
    .describe("How often files are merged into the next level."),
  "l0-retention": duration.default(300_000).describe("How long single records stay when a level covers them."),
  "shutdown-sync-timeout": duration
    .default(30_000)
    .describe("How long a stop waits for the last commits to be stored."),
  node: z
    .strictObject({
      name: z.string().optional().describe("Default: the host's name."),
      listen: z.string().optional().describe("Admin API and metrics, such as 127.0.0.1:20202."),
      advertise: z.url().optional().describe("Where other nodes reach this one."),
    })
    .prefault({}),
  cluster: z
    .strictObject({
      secret: z.string().min(8).optional().describe("Needed unless `node.listen` is loopback."),
      tls: z.strictObject({ cert: z.string(), key: z.string(), ca: z.string().optional() }).optional(),
    })
    .prefault({}),
  lease: z
    .strictObject({
      type: z.enum(["store", "consul", "etcd", "file", "static", "none"]).default("none"),
      ttl: duration.default(10_000),
      url: z.string().optional(),
      "takeover-timeout": duration.optional(),
      "handoff-timeout": duration.optional(),
      "replica-timeout": duration.optional(),
      candidate: z.boolean().default(true),
      promote: z.boolean().default(false),
      primary: z.string().optional(),
      consul: z.strictObject({ url: z.string(), key: z.string() }).optional(),
    })
    .optional(),
  proxy: z.looseObject({}).optional().describe("The front door; not part of this version."),
  exec: z
    .union([
      z
        .string()
        .min(1)
        .transform((cmd) => [{ cmd, on: "any" as const, wait: false }]),
      z.array(exec),
    ])
    .default([])
    .describe("What `run` starts, in order."),
  logging: z
    .strictObject({
      level: z.enum(["trace", "debug", "info", "warn", "error"]).optional(),
      type: z.enum(["text", "json"]).optional(),
    })
    .prefault({}),
  ...storeSettings,
});

export type ConfigFile = z.output<typeof configSchema>;
export type StoreObject = z.output<typeof storeObject>;

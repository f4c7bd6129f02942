import { z } from "zod";
import { duration, size } from "./units.ts";

/** A variable's value is a text: "true" from `${VAR}` is as good as true. */
const flag = z
  .union([z.boolean(), z.enum(["true", "false"]).transform((text) => text === "true")])
  .meta({ format: "boolean" });
const count = (least: number, most: number) =>
  z.union([
    z.int().min(least).max(most),
    z.string().regex(/^\d+$/).transform(Number).pipe(z.int().min(least).max(most)),
  ]);

/** Litestream's settings of a replica, under its names; here a store has them in `store:` or beside a URL. */
const storeSettings = {
  "access-key-id": z.string().optional().describe("S3: the key's name. Default: the usual chain of credentials."),
  "secret-access-key": z.string().optional().describe("S3: the key."),
  "session-token": z.string().optional().describe("S3: the token of temporary credentials."),
  region: z.string().optional().describe("S3: the bucket's region."),
  endpoint: z.string().optional().describe("S3: the URL of another server than Amazon's."),
  bucket: z.string().optional().describe("S3: the bucket, in place of a `url`."),
  "force-path-style": flag.optional().describe("S3: the bucket's name in the path. Default: true with an `endpoint`."),
  "skip-verify": flag.optional().describe("S3: believe any certificate. Only for tests."),
  "sign-payload": flag.optional().describe("S3: sign the content of requests, too."),
  "storage-class": z.string().optional().describe("S3: the storage class of new objects."),
  "part-size": size.optional().describe("S3: the size of the parts of large uploads."),
  concurrency: count(1, 64).optional().describe("S3: parts that are uploaded at once."),
  "sse-customer-key": z.string().optional().describe("S3: key for encryption on the server, 32 bytes in base64."),
  "sse-customer-key-path": z.string().optional().describe("S3: a file with that key."),
  "sse-kms-key-id": z.string().optional().describe("S3: the KMS key for encryption on the server."),
};

const storeObject = z.strictObject({
  type: z.enum(["file", "s3"]).optional().describe("Default: s3 with a `bucket`, otherwise file."),
  url: z.string().optional().describe("The store's URL, in place of `type`, `bucket` and `path`."),
  path: z.string().optional().describe("The directory, or the prefix in the bucket."),
  "sync-interval": duration.optional().describe("Litestream's place for it."),
  ...storeSettings,
});

const store = z.union([z.string().min(1), storeObject]);

const db = z.strictObject({
  path: z.string().min(1).optional().describe("The database file."),
  dir: z.string().min(1).optional().describe("A directory whose databases are all protected, also later ones."),
  pattern: z.string().default("*.db").describe("With `dir`: which files, as a glob for their names."),
  recursive: flag.default(false).describe("With `dir`: also in the folders below it."),
  store: store.optional().describe("Where the log is: a URL, or an object with Litestream's keys."),
  replica: store.optional().describe("Litestream's name for `store`."),
  replicas: z.array(store).length(1).optional().describe("Litestream's old spelling: a list of one."),
  "sync-interval": duration.optional().describe("How long a commit may wait before it's sent. Default 1s."),
  source: z
    .enum(["primary", "store"])
    .default("primary")
    .describe("What a replica follows: the primary, and the store while that is away; or only the store."),
  "restore-if-db-not-exists": flag.optional().describe("`replicate`: restore a missing database first."),
});

const exec = z.strictObject({
  cmd: z.string().min(1).describe("The command, as plain words; for a shell write sh -c '…'."),
  on: z.enum(["any", "primary", "replica"]).default("any").describe("The role in which it runs."),
  wait: flag.default(false).describe("Run to its end before the next one; a failure stops everything."),
});

const leaseTls = z
  .strictObject({
    ca: z.string().exactOptional().describe("PEM file: whom to believe, in place of the system's list."),
    cert: z.string().exactOptional().describe("PEM file: this node's certificate."),
    key: z.string().exactOptional().describe("PEM file: its key."),
  })
  .optional()
  .describe("For an https URL.");

const lease = z.strictObject({
  type: z
    .enum(["store", "consul", "etcd", "file", "static", "none"])
    .default("store")
    .describe(
      "Where the lease lies: beside the log, in Consul, in etcd, in a file; `static`: `primary` says who it is.",
    ),
  ttl: duration
    .default(10_000)
    .describe("After how long without a renewal others may take over. At least 2s, with Consul 10s."),
  url: z
    .string()
    .min(1)
    .optional()
    .describe("Type `store`: the store. Default: the first database's. Type `file`: the file."),
  "takeover-timeout": duration
    .default(30_000)
    .describe("What is not taken over by then stays closed, and is reported."),
  "handoff-timeout": duration.default(10_000).describe("How long a planned change of the primary may take."),
  "replica-timeout": duration
    .default(5_000)
    .describe("A replica that is further behind is no member for `replica` durability."),
  candidate: flag.default(true).describe("Whether this node may become primary."),
  promote: flag.default(false).describe("At start, take over from a running primary, once this node has caught up."),
  primary: z.url().optional().describe("Type `static`: what the primary advertises."),
  consul: z
    .strictObject({
      url: z
        .url()
        .default("http://127.0.0.1:8500")
        .describe("The agent. A password in it is the token, a path the prefix of all keys."),
      key: z.string().min(1).default("sluice/primary").describe("The key in its store."),
      token: z.string().optional().describe("An ACL token."),
      "lock-delay": duration
        .default(1_000)
        .describe("How long Consul keeps the key from others after a session ended."),
      tls: leaseTls,
    })
    .optional()
    .describe("Type `consul`."),
  etcd: z
    .strictObject({
      url: z
        .union([z.url().transform((url) => [url]), z.array(z.url()).min(1)])
        .default(["http://127.0.0.1:2379"])
        .describe("A member, or a list of them."),
      key: z.string().min(1).default("sluice/primary").describe("The key."),
      username: z.string().optional().describe("With authentication."),
      password: z.string().optional().describe("With authentication."),
      tls: leaseTls,
    })
    .optional()
    .describe("Type `etcd`."),
});

const durability = z.enum(["local", "replica", "store"]);

const route = z.strictObject({
  path: z.string().startsWith("/").describe("Which paths, after decoding; `*` stands for any text, slashes included."),
  mode: z
    .enum(["pass", "read", "write"])
    .optional()
    .describe("`pass`: to this node's application, without any rule. Default: by the method."),
  durability: durability.optional().describe("For these requests, reads included."),
});

const proxy = z.strictObject({
  listen: z.string().describe("Where clients come in, such as :8080."),
  advertise: z
    .url()
    .optional()
    .describe(
      "Where the other nodes' front doors reach this one. Default: `node.advertise` with the port of `listen`.",
    ),
  app: z.string().describe("The application on this node: http://127.0.0.1:8000, or unix:/run/app.sock."),
  durability: durability
    .default("local")
    .describe("When a write is answered: at once, when replicas have it, or when the store has it."),
  "durability-timeout": duration.default(10_000).describe("How long an answer may wait for that, before 504."),
  routes: z.array(route).default([]).describe("Exceptions; the first that fits counts."),
  "read-your-writes": flag.default(true).describe("Cookie and header that let clients see their own writes anywhere."),
  "hold-reads": flag.default(false).describe("A read waits until what it saw is durable."),
  "max-lag": duration.default(10_000).describe("A replica further behind says so on `/.sluice/health`; 0 for never."),
  forward: z
    .enum(["proxy", "fly-replay"])
    .default("proxy")
    .describe("How a write gets to the primary: through its front door, or by Fly.io's proxy."),
  "primary-timeout": duration.default(10_000).describe("How long a write waits while there is no primary."),
  "read-timeout": duration
    .default(1000)
    .describe("How long a read waits for its client's writes, before it goes to the primary."),
  "app-timeout": duration.default(5000).describe("How long a refused connection to the application is tried again."),
  "client-timeout": duration.default(60_000).describe("How long a client may send or take nothing in mid-request."),
  "idle-timeout": duration.default(75_000).describe("How long a client's connection stays open between requests."),
  "max-connections": count(1, 1_000_000).default(10_000).describe("More are closed at once."),
  "max-header-size": size.default(16_384).describe("Request line and headers together."),
  "max-body-size": size.optional().describe("The longest body that is passed on. Default: any."),
  "replay-memory": size.default(1_048_576).describe("How much of one body is kept in memory for a replay."),
  "replay-disk": size.default(1_073_741_824).describe("How much of all bodies together is kept in temporary files."),
  "replay-dir": z.string().optional().describe("Where those files are. Default: the system's for temporary files."),
  "trusted-proxies": z
    .array(z.string())
    .default(["loopback"])
    .describe("Whose `X-Forwarded-*` is believed: addresses, networks (10.0.0.0/8), `loopback`, `private`."),
});

/** The whole configuration file; one schema gives types, messages and the reference page. */
export const configSchema = z.strictObject({
  dbs: z.array(db).min(1).describe("The databases to protect."),
  snapshot: z
    .strictObject({
      interval: duration.default(86_400_000).describe("How often the whole database is written to the log."),
      retention: duration.default(86_400_000).describe("How far back one can restore."),
    })
    .prefault({})
    .describe("Copies of the whole database in the log."),
  levels: z
    .array(z.strictObject({ interval: duration.describe("How often this level is written.") }))
    .min(1)
    .max(8)
    .prefault([{ interval: "30s" }, { interval: "5m" }, { interval: "1h" }])
    .describe("How often files are merged into the next level. Default: 30s, 5m, 1h."),
  "l0-retention": duration.default(300_000).describe("How long single records stay when a level covers them."),
  "shutdown-sync-timeout": duration
    .default(30_000)
    .describe("How long a stop waits for the last commits to be stored."),
  node: z
    .strictObject({
      name: z.string().optional().describe("Default: the host's name."),
      listen: z.string().optional().describe("Admin API and metrics, such as 127.0.0.1:20202."),
      advertise: z.url().optional().describe("Where other nodes reach this one. It makes this a node of a cluster."),
    })
    .prefault({})
    .describe("This process."),
  addr: z.string().optional().describe("Litestream's address for `/metrics`, and nothing else, for everybody."),
  cluster: z
    .strictObject({
      secret: z.string().min(8).optional().describe("Needed unless `node.listen` is loopback."),
      tls: z
        .strictObject({ cert: z.string(), key: z.string(), ca: z.string().optional() })
        .optional()
        .describe("PEM files for the traffic between nodes; with `ca` both sides must show a certificate."),
    })
    .prefault({})
    .describe("What the nodes share."),
  lease: lease.optional().describe("Who may be primary. Default: none for a lone node, `store` with `node.advertise`."),
  proxy: proxy.optional().describe("The front door: a reverse proxy before the application of every node."),
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
      level: z
        .string()
        .toLowerCase()
        .pipe(z.enum(["trace", "debug", "info", "warn", "error"]))
        .optional()
        .describe("Default: `LOG_LEVEL`, or info."),
      type: z.enum(["text", "json"]).optional().describe("Default: text on a terminal, json elsewhere."),
    })
    .prefault({})
    .describe("What Sluice says on standard error."),
  ...storeSettings,
});

export type ConfigFile = z.output<typeof configSchema>;
export type ProxyFile = z.output<typeof proxy>;
export type LeaseFile = z.output<typeof lease>;
export type StoreObject = z.output<typeof storeObject>;

import path from "node:path";
import type { ClusterConfig, DbConfig, LeasePlace, LeaseTls, StoreConfig } from "./config.ts";
import type { ConfigFile, LeaseFile } from "./schema.ts";

/** Says what is wrong with the value at `key`. */
export type Report = (key: readonly PropertyKey[], message: string) => void;

const TTL_LEAST_MS = 2_000;
/** Of a session, by Consul's documentation. */
const CONSUL_TTL_LEAST_MS = 10_000;

/**
 * What makes this a node among others; undefined for a lone node, or when something was reported. `storeAt`: a store from
 * its URL.
 */
export function resolveCluster(
  file: ConfigFile,
  base: string,
  dbs: readonly DbConfig[],
  storeAt: (url: string) => StoreConfig | string,
  report: Report,
): ClusterConfig | undefined {
  const { advertise } = file.node;
  const type = file.lease?.type ?? (advertise === undefined ? "none" : "store");
  if (type === "none") {
    if (file.lease !== undefined && advertise !== undefined)
      report(["lease", "type"], "`none` is for one node; node.advertise says that there are others");
    return undefined;
  }
  if (advertise === undefined) {
    report(["lease"], "a lease is for several nodes: node.advertise must say where the others reach this one");
    return undefined;
  }
  if (file.node.listen === undefined) report(["node"], "node.listen must say where the other nodes come in");
  const lease = file.lease ?? DEFAULTS;
  if (lease.ttl < TTL_LEAST_MS)
    report(["lease", "ttl"], "a lease of less than 2s does not survive a pause of the process");
  else if (type === "consul" && lease.ttl < CONSUL_TTL_LEAST_MS)
    report(["lease", "ttl"], "a session of Consul's lives for 10s at least");
  const place = placeOf(type, lease, base, dbs, storeAt, report);
  if (place === undefined) return undefined;
  const tls = file.cluster.tls;
  const at = (name: string): string => path.resolve(base, name);
  return {
    advertise,
    tls: tls && { cert: at(tls.cert), key: at(tls.key), ...(tls.ca !== undefined && { ca: at(tls.ca) }) },
    lease: {
      place,
      ttlMs: lease.ttl,
      takeoverTimeoutMs: lease["takeover-timeout"],
      handoffTimeoutMs: lease["handoff-timeout"],
      replicaTimeoutMs: lease["replica-timeout"],
      candidate: lease.candidate,
      promote: lease.promote,
    },
  };
}

/** The schema's defaults, for a configuration without `lease`. */
const DEFAULTS: LeaseFile = {
  type: "store",
  ttl: 10_000,
  "takeover-timeout": 30_000,
  "handoff-timeout": 10_000,
  "replica-timeout": 5_000,
  candidate: true,
  promote: false,
};

function placeOf(
  type: Exclude<LeaseFile["type"], "none">,
  lease: LeaseFile,
  base: string,
  dbs: readonly DbConfig[],
  storeAt: (url: string) => StoreConfig | string,
  report: Report,
): LeasePlace | undefined {
  switch (type) {
    case "store": {
      const store = lease.url === undefined ? dbs[0]?.store : storeAt(lease.url);
      if (typeof store !== "string") return store && { type, store };
      report(["lease", "url"], store);
      return undefined;
    }
    case "file":
      if (lease.url !== undefined) return { type, path: path.resolve(base, lease.url.replace(/^file:\/\//, "")) };
      report(["lease"], "a lease of type file needs `url`, a file on a disk that all nodes share");
      return undefined;
    case "static":
      if (lease.primary !== undefined) return { type, primary: lease.primary };
      report(["lease"], "a lease of type static needs `primary`, what the primary advertises");
      return undefined;
    case "consul": {
      const { url = "http://127.0.0.1:8500", key = "sluice/primary", token, tls } = lease.consul ?? {};
      const lockDelayMs = lease.consul?.["lock-delay"] ?? 1_000;
      return { type, url, key, token, lockDelayMs, tls: tls && absolute(tls, base) };
    }
    default: {
      const {
        url: urls = ["http://127.0.0.1:2379"],
        key = "sluice/primary",
        username,
        password,
        tls,
      } = lease.etcd ?? {};
      return { type, urls, key, username, password, tls: tls && absolute(tls, base) };
    }
  }
}

function absolute(tls: LeaseTls, base: string): LeaseTls {
  const files = Object.entries(tls).map(([name, file]: [string, string]) => [name, path.resolve(base, file)]);
  return Object.fromEntries(files) as LeaseTls;
}

import { isMap, shown, type Converted, type Map } from "./converted.ts";

/** What Sluice does by itself or always. */
const NOT_NEEDED = new Set(["data", "fuse", "skip-sync", "strict-verify", "exit-on-error", "tracing"]);

/** A litefs.yml. What has no counterpart stands in the remarks. */
export function fromLiteFs(source: Map): Converted {
  const fuse = asMap(source["fuse"]);
  const dir = typeof fuse["dir"] === "string" ? fuse["dir"] : "/litefs";
  const remarks = [
    `LiteFS mounted ${dir}; Sluice looks after databases in an ordinary directory. Copy each one there: litefs export.`,
    "LiteFS kept no log in an object store: choose a place for it.",
  ];
  const config: Map = {
    dbs: [{ dir, pattern: "*", store: `file://${dir}-store` }],
  };
  if (isMap(source["lease"])) {
    const http = asMap(source["http"]);
    Object.assign(config, convertLease(source["lease"], http["addr"] ?? ":20202", remarks));
  }
  if (isMap(source["proxy"])) {
    const proxy = convertProxy(source["proxy"], remarks);
    if (proxy !== undefined) config["proxy"] = proxy;
  }
  const { exec, log } = source;
  if (typeof exec === "string") config["exec"] = exec;
  else if (Array.isArray(exec))
    config["exec"] = (exec as unknown[]).map((entry, i) => convertExec(entry, i, exec.length));
  if (isMap(log)) {
    const type = log["format"] === "json" ? "json" : "text";
    config["logging"] = { type, ...(log["debug"] === true && { level: "debug" }) };
  }
  const used = new Set([...NOT_NEEDED, "exec", "log", "lease", "proxy", "http"]);
  remarkOthers(source, used, "", remarks);
  return { config, remarks };
}

/**
 * LiteFS knew each node by its lease's `advertise-url`; with a static lease that was the primary's, on all nodes. Its
 * traffic between nodes was open to everybody who reached the port.
 */
function convertLease(lease: Map, addr: unknown, remarks: string[]): Map {
  const { type, hostname, candidate, promote } = lease;
  const advertise = lease["advertise-url"];
  const consul = asMap(lease["consul"]);
  const node: Map = { ...kept({ name: hostname }), listen: addr };
  const result: Map = { type: type ?? "consul" };
  if (type === "static") {
    Object.assign(result, kept({ primary: advertise }));
    remarks.push("node.advertise: where the others reach each node; LiteFS's static lease had only the primary's URL.");
  } else {
    Object.assign(node, kept({ advertise }));
    if (advertise === undefined) remarks.push("node.advertise: where the other nodes reach this one, http://…:20202.");
    Object.assign(result, kept({ ttl: consul["ttl"], candidate, promote }));
    result["consul"] = kept({ url: consul["url"], key: consul["key"], "lock-delay": consul["lock-delay"] });
    remarkOthers(consul, new Set(["url", "key", "ttl", "lock-delay"]), "lease.consul.", remarks);
    remarks.push("With lease: { type: store } Consul isn't needed.");
  }
  remarks.push("The nodes share a secret: set SLUICE_SECRET for all of them.");
  const used = [
    "type",
    "hostname",
    "candidate",
    "promote",
    "advertise-url",
    "consul",
    "reconnect-delay",
    "demote-delay",
  ];
  remarkOthers(lease, new Set(used), "lease.", remarks);
  return { node, cluster: { secret: "${SLUICE_SECRET}" }, lease: result };
}

/** Undefined for one without a target, which LiteFS left off. */
function convertProxy(proxy: Map, remarks: string[]): Map | undefined {
  const { addr, target } = proxy;
  if (typeof target !== "string" || target === "") return undefined;
  const routes = [...routesOf(proxy["passthrough"], "pass"), ...routesOf(proxy["always-forward"], "write")];
  const used = [
    "addr",
    "target",
    "db",
    "max-lag",
    "passthrough",
    "always-forward",
    "primary-redirect-timeout",
    "debug",
  ];
  remarkOthers(proxy, new Set(used), "proxy.", remarks);
  return {
    listen: addr ?? ":8080",
    app: /^https?:/.test(target) ? target : `http://${target}`,
    ...kept({ "max-lag": proxy["max-lag"], "primary-timeout": proxy["primary-redirect-timeout"] }),
    ...(routes.length > 0 && { routes }),
  };
}

/** LiteFS's patterns are ours, but may begin with the wildcard. */
function routesOf(patterns: unknown, mode: "pass" | "write"): Map[] {
  if (!Array.isArray(patterns)) return [];
  return (patterns as unknown[])
    .filter((pattern) => typeof pattern === "string")
    .map((pattern) => ({ path: pattern.startsWith("/") ? pattern : `/${pattern}`, mode }));
}

/** LiteFS waits for every command but the last. */
function convertExec(entry: unknown, i: number, length: number): Map {
  const map = isMap(entry) ? entry : { cmd: entry };
  return {
    cmd: map["cmd"],
    ...(map["if-candidate"] === true && { on: "primary" }),
    ...(i < length - 1 && { wait: true }),
  };
}

function remarkOthers(map: Map, used: ReadonlySet<string>, where: string, remarks: string[]): void {
  for (const [key, value] of Object.entries(map))
    if (!used.has(key)) remarks.push(`no counterpart: ${shown(where + key, value)}`);
}

function asMap(value: unknown): Map {
  return isMap(value) ? value : {};
}

/** Without the keys that aren't there. */
function kept(map: Map): Map {
  return Object.fromEntries(Object.entries(map).filter(([, value]) => value !== undefined));
}

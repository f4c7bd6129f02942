import { stringify } from "yaml";
import type { Config, DbConfig, StoreConfig } from "./config.ts";
import { explainProxy } from "./explain-proxy.ts";
import { formatListen } from "./listen.ts";
import { SETTING_NAMES } from "./resolve.ts";
import { formatDuration } from "./duration.ts";

const MASK = "***";
/** Settings, parameters of URLs and options of commands whose values are nobody's business. */
const SECRET_NAME = "[\\w-]*(?:key|secret|token|password|passwd|credential|signature)[\\w-]*";
/** Of the store's settings, the names that are no secrets although they sound so. */
const SHOWN = new Set(["sse-kms-key-id", "sse-customer-key-path"]);

/** The resolved configuration as a sluice.yml with everything spelled out, secrets masked. */
export function explain(config: Config): { readonly value: unknown; readonly text: string } {
  const value = {
    dbs: config.dbs.map(explainDb),
    snapshot: {
      interval: formatDuration(config.snapshotIntervalMs),
      retention: formatDuration(config.snapshotRetentionMs),
    },
    levels: config.levels.map(({ intervalMs }) => ({ interval: formatDuration(intervalMs) })),
    "l0-retention": formatDuration(config.l0RetentionMs),
    "shutdown-sync-timeout": formatDuration(config.shutdownSyncTimeoutMs),
    node: { name: config.node.name, listen: formatListen(config.node.listen) },
    addr: formatListen(config.metricsListen),
    cluster: { secret: config.secret === undefined ? undefined : MASK },
    proxy: config.proxy && explainProxy(config.proxy),
    exec: config.exec.map((entry) => ({ ...entry, cmd: maskCommand(entry.cmd) })),
    logging: config.logging,
  };
  const from = config.file === undefined ? "" : `# ${config.file}\n`;
  return { value, text: from + stringify(value).trimEnd() };
}

function explainDb(db: DbConfig): unknown {
  const where = db.kind === "file" ? { path: db.path } : { dir: db.dir, pattern: db.pattern, recursive: db.recursive };
  return {
    ...where,
    store: explainStore(db.store),
    "sync-interval": formatDuration(db.syncIntervalMs),
    "restore-if-db-not-exists": db.restoreIfMissing,
  };
}

function explainStore({ url, settings }: StoreConfig): unknown {
  const shown: Record<string, unknown> = { url: maskUrl(url) };
  for (const [key, name] of Object.entries(SETTING_NAMES)) {
    const value = name === undefined ? undefined : settings[name];
    if (value === undefined) continue;
    shown[key] = isSecret(key) ? MASK : key === "endpoint" ? maskUrl(String(value)) : value;
  }
  return Object.keys(shown).length === 1 ? shown["url"] : shown;
}

/** Whether a key of a configuration, Litestream's and LiteFS's included, has a secret for its value. */
export function isSecret(key: string): boolean {
  return !SHOWN.has(key) && new RegExp(`^${SECRET_NAME}$`, "i").test(key);
}

/** A text whose URLs are without passwords, in their authority and their query. */
export function maskUrl(url: string): string {
  return url
    .replaceAll(/\b([a-z][a-z0-9+.-]*:\/\/)(?:[^/\s:]*:\S*@|[^/\s]*@)/gi, `$1${MASK}@`)
    .replaceAll(new RegExp(`([?&]${SECRET_NAME}=)[^&\\s]*`, "gi"), `$1${MASK}`);
}

function maskCommand(cmd: string): string {
  return maskUrl(cmd).replaceAll(new RegExp(`(\\b${SECRET_NAME}[= ])(?:"[^"]*"|'[^']*'|\\S+)`, "gi"), `$1${MASK}`);
}

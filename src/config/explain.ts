import { stringify } from "yaml";
import type { Config } from "./config.ts";
import { formatDuration } from "./units.ts";

/** The resolved configuration for people and programs, with secrets masked and URLs without credentials. */
export function explain(config: Config): { readonly value: unknown; readonly text: string } {
  const value = {
    file: config.file,
    dbs: config.dbs.map(({ store, syncIntervalMs, restoreIfMissing, ...db }) => ({
      ...db,
      store: { url: masked(store.url), ...mask(store.settings) },
      "sync-interval": formatDuration(syncIntervalMs),
      "restore-if-db-not-exists": restoreIfMissing,
    })),
    snapshot: {
      interval: formatDuration(config.snapshotIntervalMs),
      retention: formatDuration(config.snapshotRetentionMs),
    },
    levels: config.levels.map(({ intervalMs }) => ({ interval: formatDuration(intervalMs) })),
    "l0-retention": formatDuration(config.l0RetentionMs),
    "shutdown-sync-timeout": formatDuration(config.shutdownSyncTimeoutMs),
    node: config.node,
    cluster: { secret: config.secret === undefined ? undefined : "***" },
    exec: config.exec,
    logging: config.logging,
  };
  return { value, text: stringify(value).trimEnd() };
}

function masked(url: string): string {
  return url.replace(/\/\/[^/@]*@/, "//***@").replace(/([?&][^=&]*(?:key|secret|token)[^=&]*=)[^&]*/gi, "$1***");
}

function mask(settings: object): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(settings).map(([name, value]) => [name, /key|secret|token/i.test(name) ? "***" : value]),
  );
}

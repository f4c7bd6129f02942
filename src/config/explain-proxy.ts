import type { ProxyConfig } from "./config.ts";
import { formatDuration } from "./duration.ts";
import { formatListen } from "./listen.ts";

/** The front door as a configuration file has it, everything spelled out. */
export function explainProxy(proxy: ProxyConfig): Readonly<Record<string, unknown>> {
  return {
    listen: formatListen(proxy.listen),
    advertise: proxy.advertise,
    app: "socketPath" in proxy.app ? `unix:${proxy.app.socketPath}` : `http://${formatListen(proxy.app)}`,
    durability: proxy.durability,
    "durability-timeout": formatDuration(proxy.durabilityTimeoutMs),
    routes: proxy.routes,
    "read-your-writes": proxy.readYourWrites,
    "hold-reads": proxy.holdReads,
    "max-lag": formatDuration(proxy.maxLagMs),
    forward: proxy.forward,
    "primary-timeout": formatDuration(proxy.primaryTimeoutMs),
    "read-timeout": formatDuration(proxy.readTimeoutMs),
    "app-timeout": formatDuration(proxy.appTimeoutMs),
    "client-timeout": formatDuration(proxy.clientTimeoutMs),
    "idle-timeout": formatDuration(proxy.idleTimeoutMs),
    "max-connections": proxy.connectionsMax,
    "max-header-size": String(proxy.headerBytesMax),
    "max-body-size": Number.isFinite(proxy.bodyBytesMax) ? String(proxy.bodyBytesMax) : undefined,
    "replay-memory": String(proxy.replayMemoryBytes),
    "replay-disk": String(proxy.replayDiskBytes),
    "replay-dir": proxy.replayDir,
    "trusted-proxies": proxy.trustedProxies,
  };
}

import { isIP } from "node:net";
import os from "node:os";
import path from "node:path";
import type { AppAddress, ProxyConfig } from "./config.ts";
import { parseListen } from "./listen.ts";
import type { ProxyFile } from "./schema.ts";

const LOOPBACK = ["127.0.0.0/8", "::1/128"];
const PRESETS: Readonly<Record<string, readonly string[]>> = {
  loopback: LOOPBACK,
  private: [...LOOPBACK, "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10"],
};

/** Says what is wrong with the value at `key` of `proxy:`. */
export type Report = (key: readonly PropertyKey[], message: string) => void;

/** What of the rest of the configuration a front door needs. */
export interface Surroundings {
  /** Where relative paths begin. */
  readonly base: string;
  /** `node.advertise`. */
  readonly advertise: string | undefined;
}

/** The front door with addresses parsed and presets expanded; undefined when something was reported. */
export function resolveProxy(file: ProxyFile, around: Surroundings, report: Report): ProxyConfig | undefined {
  const listen = parseListen(file.listen);
  if (listen === undefined) report(["listen"], `"${file.listen}" is no address such as :8080`);
  const app = parseApp(file.app);
  if (app === undefined) report(["app"], `"${file.app}" is neither http://HOST:PORT nor unix:/PATH`);
  if (file.advertise !== undefined && new URL(file.advertise).protocol !== "http:")
    report(["advertise"], "front doors reach each other over http://");
  const trusted = file["trusted-proxies"].flatMap((text, i) => {
    const networks = PRESETS[text] ?? [text];
    if (!networks.every(isNetwork)) report(["trusted-proxies", i], `"${text}" is no address or network`);
    return networks;
  });
  if (listen === undefined || app === undefined) return undefined;
  return {
    listen,
    advertise: file.advertise ?? advertised(around.advertise, listen.port),
    app,
    durability: file.durability,
    durabilityTimeoutMs: file["durability-timeout"],
    routes: file.routes.map(({ path, mode, durability }) => ({ path, mode, durability })),
    readYourWrites: file["read-your-writes"],
    holdReads: file["hold-reads"],
    maxLagMs: file["max-lag"],
    forward: file.forward,
    primaryTimeoutMs: file["primary-timeout"],
    readTimeoutMs: file["read-timeout"],
    appTimeoutMs: file["app-timeout"],
    clientTimeoutMs: file["client-timeout"],
    idleTimeoutMs: file["idle-timeout"],
    connectionsMax: file["max-connections"],
    headerBytesMax: file["max-header-size"],
    bodyBytesMax: file["max-body-size"] ?? Number.POSITIVE_INFINITY,
    replayMemoryBytes: file["replay-memory"],
    replayDiskBytes: file["replay-disk"],
    replayDir: path.resolve(around.base, file["replay-dir"] ?? os.tmpdir()),
    trustedProxies: trusted,
  };
}

/** The node's own address, at the front door's port. */
function advertised(node: string | undefined, port: number): string | undefined {
  if (node === undefined) return undefined;
  const { hostname } = new URL(node);
  return `http://${hostname}:${port}`;
}

function parseApp(text: string): AppAddress | undefined {
  if (text.startsWith("unix:/")) return { socketPath: text.slice("unix:".length) };
  const match = /^http:\/\/(?:\[([^\]/]+)\]|([^:/[\]]+))(?::(\d{1,5}))?\/?$/.exec(text);
  const port = Number(match?.[3] ?? 80);
  return match && port <= 65535 ? { host: match[1] ?? match[2]!, port } : undefined;
}

function isNetwork(text: string): boolean {
  const [address = "", bits, more] = text.split("/");
  const version = isIP(address);
  if (version === 0 || more !== undefined) return false;
  return bits === undefined || (/^\d+$/.test(bits) && Number(bits) <= (version === 4 ? 32 : 128));
}

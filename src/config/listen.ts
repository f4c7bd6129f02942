import type { ListenAddress } from "./config.ts";

/** "host:port", or ":port" for every address of the machine, IPv6 (where there is any) and IPv4: its host is empty. */
export function parseListen(text: string): ListenAddress | undefined {
  const match = /^(?:\[([^\]]+)\]|([^:]*)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (!match || port > 65535) return undefined;
  return { host: match[1] ?? match[2]!, port };
}

/** The same as text. */
export function formatListen(listen: ListenAddress | undefined): string | undefined {
  if (listen === undefined) return undefined;
  return `${listen.host.includes(":") ? `[${listen.host}]` : listen.host}:${listen.port}`;
}

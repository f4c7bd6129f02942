import { BlockList, isIPv4, isIPv6 } from "node:net";

/** Decides from whom `X-Forwarded-*` is believed. */
export class TrustedProxies {
  readonly #list = new BlockList();

  /** Addresses and networks in CIDR notation, valid ones. */
  constructor(networks: readonly string[]) {
    for (const network of networks) {
      const [address = "", bits] = network.split("/");
      const family = isIPv4(address) ? "ipv4" : "ipv6";
      this.#list.addSubnet(address, bits === undefined ? (family === "ipv4" ? 32 : 128) : Number(bits), family);
    }
  }

  has(address: string): boolean {
    if (isIPv4(address)) return this.#list.check(address, "ipv4");
    return isIPv6(address) && this.#list.check(address, "ipv6");
  }
}

/** IPv4 addresses of a dual-stack socket without their IPv6 clothes. */
export function plainAddress(address: string | undefined): string {
  return address?.startsWith("::ffff:") ? address.slice("::ffff:".length) : (address ?? "unknown");
}

import { execFileSync } from "node:child_process";
import type { Network, NetworkFault, Place } from "./network.ts";

/** Tables of addresses are asked in this order: cuts, then the machine's own addresses, then all others. */
const CUT = "10";
const LOCAL = "20";

function ip(...words: readonly string[]): void {
  execFileSync("ip", words, { stdio: ["ignore", "ignore", "pipe"] });
}

/** Why there can be no network namespaces here; undefined when there can. */
export function lacksNamespaces(): string | undefined {
  const name = `sl-try-${process.pid}`;
  try {
    ip("netns", "add", name);
  } catch (error) {
    return `no network namespaces: ${String((error as { stderr?: Buffer }).stderr ?? error).trim()}`;
  }
  try {
    ip("-n", name, "rule", "add", "pref", CUT, "from", "192.0.2.1", "blackhole");
    return undefined;
  } catch (error) {
    return `no rules for addresses: ${String((error as { stderr?: Buffer }).stderr ?? error).trim()}`;
  } finally {
    ip("netns", "del", name);
  }
}

/**
 * Each node in a network namespace of its own, and the store in another, on one bridge. A cut drops every packet from one
 * to another, without a word to either: nothing is refused, connections hang. It is a rule of the receiver's that sends
 * them to nowhere, asked before the machine's own addresses are. This process reaches everybody always.
 */
export class Namespaces implements Network {
  readonly #prefix: string;
  readonly #net: number;
  readonly #addresses = new Map<string, string>();
  readonly #cuts: (readonly [from: string, to: string])[] = [];
  readonly faults: readonly NetworkFault[] = [
    { name: "nothing arrives on one way", run: (node, next) => this.#cutSome(node, next, false) },
    { name: "a link is cut", run: (node, next) => this.#cutSome(node, next, true) },
    { name: "the node is alone", run: (node) => this.#alone(node) },
    { name: "the network is back", run: () => this.heal() },
  ];

  constructor() {
    const id = Math.floor(Math.random() * 250) + 1;
    this.#net = id;
    this.#prefix = `sl${id}`;
    ip("link", "add", `${this.#prefix}-br`, "type", "bridge");
    ip("address", "add", `10.213.${id}.254/24`, "dev", `${this.#prefix}-br`);
    ip("link", "set", `${this.#prefix}-br`, "up");
  }

  /** A host with this name; its address, and the words before a command that is to run there. */
  host(name: string): { readonly address: string; readonly via: readonly string[] } {
    const space = this.#space(name);
    const via = ["ip", "netns", "exec", space];
    const known = this.#addresses.get(name);
    if (known !== undefined) return { address: known, via };
    const address = `10.213.${this.#net}.${this.#addresses.size + 1}`;
    const cable = `${this.#prefix}-${name}`;
    this.#addresses.set(name, address);
    ip("netns", "add", space);
    ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space);
    ip("link", "set", cable, "master", `${this.#prefix}-br`, "up");
    ip("-n", space, "address", "add", `${address}/24`, "dev", "eth0");
    ip("-n", space, "link", "set", "eth0", "up");
    ip("-n", space, "link", "set", "lo", "up");
    ip("-n", space, "rule", "add", "pref", LOCAL, "lookup", "local");
    ip("-n", space, "rule", "del", "pref", "0");
    return { address, via };
  }

  async place(name: string): Promise<Place> {
    const { address, via } = this.host(name);
    const ports = { api: 20_202, door: 8080, app: 8000 };
    return { host: address, ports, advertise: `http://${address}:${ports.api}`, via };
  }

  /** From now on nothing that `from` sends arrives at `to`. */
  cut(from: string, to: string): void {
    if (this.#cuts.some((cut) => cut[0] === from && cut[1] === to)) return;
    this.#rule("add", from, to);
    this.#cuts.push([from, to]);
  }

  heal(): void {
    for (const [from, to] of this.#cuts.splice(0)) this.#rule("del", from, to);
  }

  /** Nobody of the first hears of anybody of the others, nor they of them. */
  part(...sides: readonly (readonly string[])[]): void {
    for (const one of sides)
      for (const other of sides) if (one !== other) for (const a of one) for (const b of other) this.cut(a, b);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const name of this.#addresses.keys()) ip("netns", "del", this.#space(name));
    ip("link", "del", `${this.#prefix}-br`);
  }

  #rule(what: "add" | "del", from: string, to: string): void {
    ip("-n", this.#space(to), "rule", what, "pref", CUT, "from", this.#addresses.get(from)!, "blackhole");
  }

  #space(name: string): string {
    return `${this.#prefix}-${name}`;
  }

  #cutSome(node: string, next: () => number, both: boolean): string {
    const others = [...this.#addresses.keys()].filter((name) => name !== node);
    const other = others[Math.floor(next() * others.length)]!;
    const [from, to] = next() < 0.5 ? [node, other] : [other, node];
    this.cut(from, to);
    if (both) this.cut(to, from);
    return both ? `between ${from} and ${to}` : `from ${from} to ${to}`;
  }

  #alone(node: string): void {
    const others = [...this.#addresses.keys()].filter((name) => name !== node);
    this.part([node], others);
  }
}

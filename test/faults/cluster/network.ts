import { freePort } from "../../e2e/site.ts";
import { Link } from "./link.ts";

/** Where one node is in the network. */
export interface Place {
  /** What its processes listen on. */
  readonly host: string;
  readonly ports: { readonly api: number; readonly door: number; readonly app: number };
  /** Where the other nodes reach it. */
  readonly advertise: string;
  /** Words before a command that is to run there. */
  readonly via: readonly string[];
}

/** What can be done to a network: a name, and the deed, of which `next` draws the rest. */
export interface NetworkFault {
  readonly name: string;
  readonly run: (node: string, next: () => number) => string | void;
}

/** The network between the nodes, and to the store. Cuts last until `heal`. */
export interface Network extends AsyncDisposable {
  readonly faults: readonly NetworkFault[];
  place(name: string): Promise<Place>;
  heal(): void;
}

/** All on this machine's loopback, with a proxy before each node's API: only the stream and what nodes ask each other is cut. */
export class Loopback implements Network {
  readonly #links = new Map<string, Link>();
  readonly faults: readonly NetworkFault[] = [
    { name: "cut the network to the node", run: (node) => this.#links.get(node)?.set("cut") },
    { name: "nothing reaches the node", run: (node) => this.#links.get(node)?.set("silent") },
    { name: "the network is back", run: (node) => this.#links.get(node)?.set("open") },
  ];

  async place(name: string): Promise<Place> {
    const ports = { api: await freePort(), door: await freePort(), app: await freePort() };
    const link = await Link.before(ports.api);
    this.#links.set(name, link);
    return { host: "127.0.0.1", ports, advertise: `http://127.0.0.1:${link.port}`, via: [] };
  }

  heal(): void {
    for (const link of this.#links.values()) link.set("open");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const link of this.#links.values()) await link[Symbol.asyncDispose]();
  }
}

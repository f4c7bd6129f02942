import { createHmac, timingSafeEqual } from "node:crypto";

/** On a request between front doors; never accepted from a client. */
export const HOP = "Sluice-Hop";
/** On the answer of a front door that is not the primary's: no application has seen the request. */
export const NOT_PRIMARY = "not-primary";

/** What the first front door says about a request. */
export interface Hop {
  /** The first node's name. */
  readonly from: string;
  /** The client's address, and those before it, as in `X-Forwarded-For`. */
  readonly client: string;
  readonly proto: "http" | "https";
  readonly mode: "read" | "write";
  /** The client itself asked to be told whether to send its body (`Expect: 100-continue`). */
  readonly expects: boolean;
  readonly host: string;
}

/**
 * Signs what one front door tells another, bound to method and target. There is no time in it, so that nodes whose
 * clocks differ understand each other; who can read the network between nodes can read the requests themselves.
 */
export class HopSigner {
  readonly #key: Buffer;

  constructor(secret: string) {
    this.#key = createHmac("sha256", secret).update("sluice front door").digest();
  }

  sign(hop: Hop, method: string, target: string): string {
    const { from, client, proto, mode, expects, host } = hop;
    const text = [from, client, proto, mode, expects ? "1" : "0", host].map(encodeURIComponent).join("&");
    return `${text}&${this.#mac(text, method, target).toString("base64url")}`;
  }

  /** Undefined unless this cluster's secret made it for this request. */
  verify(text: string, method: string, target: string): Hop | undefined {
    const end = text.lastIndexOf("&");
    const given = Buffer.from(text.slice(end + 1), "base64url");
    const mac = this.#mac(text.slice(0, end), method, target);
    if (end === -1 || given.length !== mac.length || !timingSafeEqual(given, mac)) return undefined;
    const [from, client, proto, mode, expects, host] = text.slice(0, end).split("&").map(decodeURIComponent);
    return {
      from: from!,
      client: client!,
      proto: proto === "https" ? "https" : "http",
      mode: mode === "write" ? "write" : "read",
      expects: expects === "1",
      host: host!,
    };
  }

  #mac(text: string, method: string, target: string): Buffer {
    return createHmac("sha256", this.#key).update(`${method} ${target}\n${text}`).digest();
  }
}

import { once } from "node:events";
import { request as plainRequest } from "node:http";
import { request as secureRequest } from "node:https";
import { json } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import type { IncomingMessage } from "node:http";
import type { Node } from "../cluster/node.ts";
import { clientTls, type TlsFiles } from "../cluster/stream/tls.ts";
import { isErrorCode } from "../errors/codes.ts";
import { SluiceError } from "../errors/error.ts";

/** How long a change of the primary may take, with everything. */
const LIMIT_MS = 60_000;
const LOOK_MS = 20;

export interface PromoteOptions {
  readonly secret: string | undefined;
  readonly tls?: TlsFiles | undefined;
  /** This node takes over although the nodes that must agree are gone. */
  readonly force?: boolean;
}

export interface Promoted {
  /** Name of the primary now. */
  readonly primary: string;
  readonly tookMs: number;
}

/**
 * Makes `to` (a node's name or id; default: this node) the primary, by a planned handover (protocol section 10). Asked of
 * a replica, it asks the primary. Resolves when the new primary is known here. Rejects with SLU-8101, 8104, 8105, with
 * SLU-8108 when no primary can be reached.
 */
export async function promote(node: Node, to: string | undefined, options: PromoteOptions): Promise<Promoted> {
  const startedMs = performance.now();
  const { status } = node;
  const wanted = to ?? status.node;
  const isSelf = wanted === status.node || wanted === status.nodeId;
  const signal = AbortSignal.timeout(LIMIT_MS);
  if (node.reign !== undefined && isSelf) return { primary: status.node, tookMs: 0 };
  if (options.force === true) node.force();
  else if (node.role === "primary") await node.handOver(wanted);
  else await askPrimary(node, isSelf ? (status.nodeId ?? wanted) : wanted, options, signal);
  const is = (): boolean =>
    isSelf
      ? node.reign !== undefined
      : node.primary !== undefined && [node.primary.name, node.primary.nodeId].includes(wanted);
  while (!is()) {
    if (signal.aborted)
      throw new SluiceError("SLU-8108", `${wanted} has not become the primary within ${LIMIT_MS / 1000} s`);
    node.lookAtLease();
    await sleep(LOOK_MS);
  }
  return { primary: wanted, tookMs: performance.now() - startedMs };
}

async function askPrimary(node: Node, to: string, { secret, tls }: PromoteOptions, signal: AbortSignal): Promise<void> {
  const { primary } = node;
  if (primary === undefined || primary.isSelf) throw new SluiceError("SLU-8108", "no primary is known");
  const url = new URL("v1/promote", primary.advertise.endsWith("/") ? primary.advertise : `${primary.advertise}/`);
  const headers = { "content-type": "application/json", ...(secret && { authorization: `Bearer ${secret}` }) };
  const sent =
    url.protocol === "https:"
      ? secureRequest(url, { method: "POST", headers, signal, ...(tls && clientTls(tls)) })
      : plainRequest(url, { method: "POST", headers, signal });
  sent.end(JSON.stringify({ node: to }));
  let response: IncomingMessage;
  try {
    [response] = (await once(sent, "response")) as [IncomingMessage];
  } catch (cause) {
    throw new SluiceError("SLU-8108", `${primary.name} (${primary.advertise}) can't be reached`, { cause });
  }
  if (response.statusCode === 200) return void response.resume();
  const { code, error } = (await json(response).catch(() => ({}))) as { code?: string; error?: string };
  const known = code !== undefined && isErrorCode(code) ? code : "SLU-8108";
  throw new SluiceError(known, error ?? `${primary.name} answered ${response.statusCode}`);
}

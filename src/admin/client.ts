import { once } from "node:events";
import { request, type IncomingMessage } from "node:http";
import { json } from "node:stream/consumers";
import { isErrorCode } from "../errors/codes.ts";
import { SluiceError } from "../errors/error.ts";
import type { NodeStatus } from "../cluster/status.ts";
import { readOwner, socketsHere, type Owner } from "./owner.ts";

/** A process that is alive answers a question about its status at once. */
const ANSWER_LIMIT_MS = 10_000;

export interface Question {
  readonly method: "GET" | "POST";
  readonly path: string;
  readonly body?: unknown;
  /** How long the answer may take; a little more than what was asked to be waited for. */
  readonly limitMs?: number;
}

/**
 * Asks the process that looks after `db`, over its control socket. Rejects with SLU-1004 when there's none or it
 * doesn't answer, and with the process's own errors.
 */
export async function ask<T>(db: string, question: Question): Promise<T> {
  const owner = readOwner(db);
  if (owner === undefined) throw new SluiceError("SLU-1004", `nobody looks after ${db} on this machine`);
  const { status, body } = await call(owner, question).catch((cause: unknown) => {
    throw new SluiceError("SLU-1004", `process ${owner.pid}, which looks after ${db}, doesn't answer`, { cause });
  });
  if (status === 200) return body as T;
  throw answerError(owner, status, body);
}

/** What every Sluice of this user on this machine says that answers. */
export async function nodesHere(): Promise<NodeStatus[]> {
  const asked = socketsHere().map(async (socket) => {
    const { status, body } = await call({ socket }, { method: "GET", path: "/v1/status" });
    return status === 200 ? [body as NodeStatus] : [];
  });
  const answers = await Promise.allSettled(asked);
  return answers.flatMap((answer) => (answer.status === "fulfilled" ? answer.value : []));
}

/** The error that an answer with another status than 200 tells of. */
export function answerError(owner: Owner, status: number, body: unknown): Error {
  const { code, error, hint } = body as { code?: string; error?: string; hint?: string };
  const message = error ?? `process ${owner.pid} answered with status ${status}`;
  if (code === undefined || !isErrorCode(code)) return new Error(message);
  return new SluiceError(code, message, hint === undefined ? {} : { hint });
}

async function call(
  owner: Pick<Owner, "socket">,
  question: Question,
): Promise<{ readonly status: number; readonly body: unknown }> {
  const { method, path, body, limitMs = ANSWER_LIMIT_MS } = question;
  const sent = request({
    socketPath: owner.socket,
    path,
    method,
    headers: { "content-type": "application/json" },
    signal: AbortSignal.timeout(limitMs),
  });
  sent.end(body === undefined ? undefined : JSON.stringify(body));
  const [response] = (await once(sent, "response")) as [IncomingMessage];
  return { status: response.statusCode ?? 0, body: await json(response) };
}

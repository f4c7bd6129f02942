import { once } from "node:events";
import { request, type IncomingMessage } from "node:http";
import { createInterface } from "node:readline";
import { json } from "node:stream/consumers";
import { isErrorCode } from "../errors/codes.ts";
import { SluiceError } from "../errors/error.ts";
import { answerError, ask } from "./client.ts";
import type { GivenBack, LoanRequest } from "./lending.ts";
import type { LoanLine, LoanProblem } from "./loans.ts";
import { readOwner } from "./owner.ts";

/** Longer than the store and the handover may take. */
const RETURN_MS = 15 * 60_000;

/** A loan of the primary, as the command that has it sees it. */
export interface Borrowed {
  /** This node's name. */
  readonly node: string;
  /** The primary before; undefined when it was this node. */
  readonly home: string | undefined;
  /** Aborted with the reason when the loan ended by itself, or the process that gave it. */
  readonly lost: AbortSignal;
  /** Everything is in the store, and another node the primary again. Rejects with SLU-1004, SLU-8112, SLU-8113. */
  readonly giveBack: () => Promise<GivenBack>;
}

/**
 * Borrows the primary from the process that looks after `db`. The loan ends with this process at the latest. Rejects with
 * SLU-1004, with what `Lending.lend` rejects with, and with the reason of `signal`.
 */
export async function borrow(
  db: string,
  wanted: LoanRequest,
  onWaiting: (reason: string) => void,
  signal: AbortSignal,
): Promise<Borrowed> {
  const owner = readOwner(db);
  if (owner === undefined) throw new SluiceError("SLU-1004", `nobody looks after ${db} on this machine`);
  const gone = (cause?: unknown): SluiceError =>
    new SluiceError("SLU-1004", `process ${owner.pid}, which looks after ${db}, doesn't answer`, { cause });
  const headers = { "content-type": "application/json" };
  const sent = request({ socketPath: owner.socket, path: "/v1/loans", method: "POST", headers });
  const onAbort = (): void => void sent.destroy();
  signal.addEventListener("abort", onAbort, { once: true });
  sent.on("error", () => undefined);
  sent.end(JSON.stringify(wanted));
  try {
    const response = await once(sent, "response").then(([one]) => one as IncomingMessage);
    if (response.statusCode !== 200) throw answerError(owner, response.statusCode ?? 0, await json(response));
    const lent = Promise.withResolvers<Extract<LoanLine, { is: "lent" }>>();
    const lost = new AbortController();
    const lines = createInterface({ input: response });
    lines.on("line", (text) => {
      if (text === "") return;
      const line = JSON.parse(text) as LoanLine;
      if (line.is === "waiting") onWaiting(line.error);
      else if (line.is === "lent") lent.resolve(line);
      else lent.reject(errorOf(line));
      if (line.is === "lost") lost.abort(errorOf(line));
    });
    // A killed process ends the answer in its middle.
    for (const stream of [response, lines]) stream.on("error", () => undefined);
    response.on("close", () => {
      lent.reject(gone());
      if (!lost.signal.aborted) lost.abort(new SluiceError("SLU-8112", `process ${owner.pid} is gone`));
    });
    const { id, node, home } = await lent.promise;
    const question = { method: "POST", path: "/v1/loans/return", body: { id }, limitMs: RETURN_MS } as const;
    return { node, home, lost: lost.signal, giveBack: () => ask<GivenBack>(db, question) };
  } catch (error) {
    sent.destroy();
    signal.throwIfAborted();
    throw error instanceof SluiceError ? error : gone(error);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

function errorOf({ code, error, hint }: LoanProblem): Error {
  return code !== undefined && isErrorCode(code) ? new SluiceError(code, error, { hint }) : new Error(error);
}

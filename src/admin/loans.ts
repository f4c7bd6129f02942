import type { ServerResponse } from "node:http";
import type { ErrorCode } from "../errors/codes.ts";
import { isSluiceError, SluiceError } from "../errors/error.ts";
import type { GivenBack, Lending, LoanRequest } from "./lending.ts";

/** Shows a connection whose client is gone. */
const ALIVE_MS = 5_000;
const LONGEST_MS = 24 * 60 * 60_000;

/** What can be wrong with a loan, as a line of the answer. */
export interface LoanProblem {
  readonly code: ErrorCode | undefined;
  readonly error: string;
  readonly hint: string;
}

/** A line of the answer to `POST /v1/loans`. Empty lines only show that the connection lives. */
export type LoanLine =
  | ({ readonly is: "waiting" } & LoanProblem)
  | { readonly is: "lent"; readonly id: string; readonly node: string; readonly home: string | undefined }
  /** Not given, or over before it was given back. */
  | ({ readonly is: "refused" | "lost" } & LoanProblem);

/**
 * `POST /v1/loans`: lines of JSON for as long as the loan lasts. The client that ends the connection gives the loan back;
 * `POST /v1/loans/return` does so with an answer.
 */
export async function answerLoan(
  lending: Lending,
  node: string,
  request: LoanRequest,
  response: ServerResponse,
): Promise<void> {
  const gone = new AbortController();
  response.on("close", () => gone.abort(new SluiceError("SLU-1008", "the command is gone")));
  response.writeHead(200, { "content-type": "application/x-ndjson", "cache-control": "no-store" });
  const say = (line: LoanLine): void => void response.write(`${JSON.stringify(line)}\n`);
  response.flushHeaders();
  const alive = setInterval(() => response.write("\n"), ALIVE_MS);
  response.on("close", () => clearInterval(alive));
  try {
    const loan = await lending.lend(request, (reason) => say({ is: "waiting", ...problem(reason) }), gone.signal);
    say({ is: "lent", id: loan.id, node, home: loan.home?.name });
    loan.lost.addEventListener("abort", () => {
      say({ is: "lost", ...problem(loan.lost.reason) });
      response.end();
    });
    if (loan.lost.aborted) response.end(`${JSON.stringify({ is: "lost", ...problem(loan.lost.reason) })}\n`);
  } catch (error) {
    say({ is: "refused", ...problem(error) });
    response.end();
  }
}

/** Answers `POST /v1/loans/return`. Rejects as `Lending.giveBack` does, with SLU-1000 for another body. */
export async function returnLoan(lending: Lending, body: unknown): Promise<GivenBack> {
  const { id } = (body ?? {}) as Record<string, unknown>;
  if (typeof id !== "string") throw new SluiceError("SLU-1000", "the body names no loan");
  return lending.giveBack(id);
}

/** The body of `POST /v1/loans`. Throws SLU-1000. */
export function parseLoan(body: unknown): LoanRequest {
  const { db, waitMs, limitMs } = (body ?? {}) as Record<string, unknown>;
  const isTime = (ms: unknown): ms is number => typeof ms === "number" && ms >= 0 && ms <= LONGEST_MS;
  if ((db === undefined || typeof db === "string") && isTime(waitMs) && isTime(limitMs)) return { db, waitMs, limitMs };
  throw new SluiceError("SLU-1000", "the body is no loan", {
    hint: 'Expected {"waitMs": 60000, "limitMs": 600000, "db": "/path"}, at most 24h each.',
  });
}

function problem(error: unknown): LoanProblem {
  if (isSluiceError(error)) return { code: error.code, error: error.message, hint: error.hint };
  return { code: undefined, error: error instanceof Error ? error.message : String(error), hint: "" };
}

import type { Replica } from "../database/replica.ts";
import { isSluiceError, SluiceError } from "../errors/error.ts";
import { type Clock, delay, sleep } from "../log/clock.ts";
import { type LogContext, untilAnswered } from "../log/context.ts";
import { listLog } from "../log/listing.ts";
import { placeLog } from "../log/place.ts";
import type { Attachment, Upstream } from "./upstream.ts";

/** How often the log is asked while no primary is in reach. */
const STORE_POLL_MS = 1_000;
/** How long a primary may be away before the log is asked. */
const STORE_AFTER_MS = 3_000;

export interface FollowingOptions {
  readonly name: string;
  readonly replica: Replica;
  readonly upstream: Upstream;
  /** Undefined for a database without a log. */
  readonly context: LogContext | undefined;
  /** Only the log is followed. */
  readonly storeOnly: boolean;
  readonly onProblem: (error: unknown) => void;
  readonly clock: Clock;
}

/**
 * Follows with one replica until `signal` is aborted: the primary's stream, or the log while no primary has been in reach
 * for three seconds. Rejects with what the replica must be opened anew for.
 *
 *     joined ── the primary is gone for 3 s, or only the log is wanted ──► polling the log, once a second
 *        ▲                                                                      │
 *        └────────────────── tried again after each poll ◄──────────────────────┘
 */
export async function follow(options: FollowingOptions, signal: AbortSignal): Promise<void> {
  const { name, replica, upstream, context, storeOnly, onProblem, clock } = options;
  let attachment: Attachment | undefined;
  let awayMs = STORE_AFTER_MS;
  try {
    while (!signal.aborted) {
      attachment ??= storeOnly ? undefined : upstream.attach(name, replica);
      await Promise.race([sleep(clock, STORE_POLL_MS, signal), attachment?.failed]);
      if (signal.aborted) break;
      awayMs = attachment?.isJoined === true ? 0 : awayMs + STORE_POLL_MS;
      if (awayMs < STORE_AFTER_MS || context === undefined) continue;
      await attachment?.detach();
      attachment = undefined;
      try {
        await placeLog(context, replica, AbortSignal.any([signal, clock.timeout(STORE_POLL_MS * 30)]));
      } catch (error) {
        if (!isSluiceError(error) || isFinal(error.code)) throw error;
        if (!signal.aborted) onProblem(error);
      }
    }
  } finally {
    await attachment?.detach();
  }
}

/**
 * Waits with a file without history on a replica: as soon as there is a log, which then is of another file, it rejects
 * with SLU-4104; before that with the reason of `signal`.
 */
export async function untilRefused(context: LogContext, path: string, signal: AbortSignal): Promise<never> {
  for (;;) {
    const files = await untilAnswered(context, "list the log", signal, () =>
      listLog(context.store, context.layout, { signal }),
    );
    if (files.length > 0) {
      throw new SluiceError("SLU-4104", `${path} is on a replica, and belongs to no log; ${context.url} has one`);
    }
    await delay(context.clock, STORE_POLL_MS, signal);
  }
}

/** What the database itself is at fault for, or that it is another log's. */
function isFinal(code: string): boolean {
  return (code.startsWith("SLU-2") && code !== "SLU-2008") || code === "SLU-4105";
}

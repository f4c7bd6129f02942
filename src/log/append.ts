import { statSync, type Stats } from "node:fs";
import { open } from "node:fs/promises";
import type { FrozenBatch } from "../database/contract.ts";
import { isSluiceError, SluiceError } from "../errors/error.ts";
import { isUnfenced } from "../store/probe.ts";
import { Backoff, untilAnswered, type LogContext } from "./context.ts";
import { formatTxid } from "./layout.ts";

/** What is sent: a sealed batch, or its file, which never changes. */
export type AppendBody = Pick<FrozenBatch, "txid" | "path" | "sizeBytes" | "timestampMs">;

/**
 * `written`: the store says that it has created the object just now. `own`: the slot holds the same bytes, from an
 * earlier try. Both mean confirmed to a primary; a candidate looks further (takeover.ts). `lost`: another writer's.
 */
export type AppendOutcome = "written" | "own" | "lost";

/**
 * Writes a batch into its slot (protocol section 7, Append).
 *
 *     sent ─ written ──────────────────────────► written
 *      ▲ │── refused ─► reading ─ same bytes ──► own
 *      │ │                 │── other bytes, or nothing there ─► lost
 *      │ └── undecided ─► waiting ─┐
 *      └───────────────────────────┘  the same bytes again, for as long as it takes
 *
 * A store that can't refuse is looked at before each try, so that only a race overwrites what another writer has there.
 * An undecided try may still land later, so only the store's word on the slot ends this. A killed process sends the
 * same bytes again in its next life: its own success then shows as `own`.
 * Throws SLU-4109 when `signal` is aborted (undecided), SLU-4108 when the local file is not there as it was sealed.
 */
export async function append(context: LogContext, batch: AppendBody, signal: AbortSignal): Promise<AppendOutcome> {
  const { store, layout } = context;
  const key = layout.slotKey(batch.txid);
  const step = `append ${formatTxid(batch.txid)}`;
  const backoff = new Backoff(context, step);
  for (;;) {
    assertSealed(batch);
    if (isUnfenced(store)) {
      const held = await untilAnswered(context, step, signal, () => inSlot(context, key, batch, signal));
      if (held !== "nothing") return held === "same" ? "own" : "lost";
    }
    const answer = await store
      .put(
        key,
        { path: batch.path, sizeBytes: batch.sizeBytes },
        { condition: "absent", timestampMs: batch.timestampMs, signal },
      )
      .catch((cause: unknown) => ({ outcome: "undecided" as const, cause }));
    if (answer.outcome === "written") return "written";
    if (answer.outcome === "refused") {
      const held = await untilAnswered(context, step, signal, () => inSlot(context, key, batch, signal));
      return held === "same" ? "own" : "lost";
    }
    await backoff.wait(answer.cause, signal);
  }
}

/** The store must never be sent anything else than what was sealed, not even a shorter file. */
function assertSealed(batch: AppendBody): void {
  let found: Stats;
  try {
    found = statSync(batch.path);
  } catch (cause) {
    throw new SluiceError("SLU-4108", `${batch.path}: the sealed batch can't be read`, { cause });
  }
  if (found.size === batch.sizeBytes) return;
  throw new SluiceError(
    "SLU-4108",
    `${batch.path}: the sealed batch has ${found.size} bytes instead of ${batch.sizeBytes}`,
  );
}

/** Whether the slot's object is byte for byte the local file. */
async function inSlot(
  context: LogContext,
  key: string,
  batch: AppendBody,
  signal: AbortSignal,
): Promise<"same" | "other" | "nothing"> {
  const object = await context.store.get(key, { signal }).catch((error: unknown) => {
    if (isSluiceError(error, "SLU-3404")) return undefined;
    throw error;
  });
  if (object === undefined) return "nothing";
  const file = await open(batch.path, "r");
  try {
    let offset = 0;
    let own = Buffer.allocUnsafe(0);
    for await (const chunk of object.body) {
      if (object.sizeBytes !== batch.sizeBytes || offset + chunk.length > batch.sizeBytes) return "other";
      if (own.length < chunk.length) own = Buffer.allocUnsafe(chunk.length);
      const { bytesRead } = await file.read(own, 0, chunk.length, offset);
      if (bytesRead !== chunk.length || own.compare(chunk, 0, chunk.length, 0, bytesRead) !== 0) return "other";
      offset += chunk.length;
    }
    return offset === batch.sizeBytes ? "same" : "other";
  } finally {
    await file.close();
  }
}

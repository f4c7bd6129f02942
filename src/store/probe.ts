import { randomBytes } from "node:crypto";
import { SluiceError } from "../errors/error.ts";
import type { ObjectStore, PutOutcome } from "./store.ts";

/** Why a store can't keep two writers from one log; `undefined`: as far as a probe can tell, it can. */
export type FencingProblem = SluiceError | undefined;

const RACERS = 16;

const probed = new WeakMap<ObjectStore, Promise<FencingProblem>>();
const unfenced = new WeakSet<ObjectStore>();

/**
 * Tries out what the log relies on (protocol section 7): of sixteen connections that create one key at once exactly
 * one succeeds, what it wrote is listed at once, and an exchange by etag holds. Done once for a store; a failure to ask
 * (SLU-3101 and so on) is thrown and not remembered. Leaves nothing behind. A store that passes may still fail its
 * promise inside, when it loses a machine: nobody can try that out from here.
 */
export function probeFencing(store: ObjectStore, signal?: AbortSignal): Promise<FencingProblem> {
  let result = probed.get(store);
  if (result === undefined) {
    result = probe(store, signal).then(
      (problem) => {
        if (problem !== undefined) unfenced.add(store);
        return problem;
      },
      (error: unknown) => {
        probed.delete(store);
        throw error;
      },
    );
    probed.set(store, result);
  }
  return result;
}

/** Whether a probe of the store has found that it can't keep two writers from one log. */
export function isUnfenced(store: ObjectStore): boolean {
  return unfenced.has(store);
}

async function probe(store: ObjectStore, signal: AbortSignal | undefined): Promise<FencingProblem> {
  const key = `.sluice-probe-${randomBytes(8).toString("hex")}`;
  try {
    return (await race(store, key, signal)) ?? (await exchange(store, key, signal));
  } finally {
    // Not with the signal: also a probe that was broken off leaves nothing.
    await store.delete([key]).catch(() => undefined);
  }
}

/** Bodies of different lengths, so that the listing tells whose is there. */
async function race(store: ObjectStore, key: string, signal: AbortSignal | undefined): Promise<FencingProblem> {
  const outcomes = await Promise.all(
    Array.from({ length: RACERS }, (_, i) =>
      store.put(key, Buffer.alloc(i + 1), { condition: "absent", ...(signal && { signal }) }),
    ),
  );
  const winners = outcomes.flatMap(({ outcome }, i) => (outcome === "written" ? [i] : []));
  if (winners.length > 1) return unable(store, `${winners.length} of ${RACERS} writers created the same object`);
  const undecided = outcomes.find((outcome) => outcome.outcome === "undecided");
  if (winners.length === 0 && undecided !== undefined) throw unanswered(store, undecided);
  if (winners.length === 0) return unable(store, "nobody could create an object that wasn't there");
  for await (const found of store.list(key, signal && { signal })) {
    if (found.key !== key) continue;
    const isWinners = found.sizeBytes === winners[0]! + 1;
    return isWinners ? undefined : unable(store, "an object was replaced by a writer who was told that it's there");
  }
  return unable(store, "an object that was just written is not listed");
}

async function exchange(store: ObjectStore, key: string, signal: AbortSignal | undefined): Promise<FencingProblem> {
  const { etag, body } = await store.get(key, signal && { signal });
  for await (const _ of body) break;
  const condition = { etag };
  const first = await store.put(key, Buffer.alloc(RACERS + 1), { condition, ...(signal && { signal }) });
  if (first.outcome === "undecided") throw unanswered(store, first);
  if (first.outcome === "refused") return unable(store, "an object could not be exchanged by its etag");
  const second = await store.put(key, Buffer.alloc(RACERS + 2), { condition, ...(signal && { signal }) });
  if (second.outcome === "undecided") throw unanswered(store, second);
  return second.outcome === "refused" ? undefined : unable(store, "an exchange by an old etag was not refused");
}

function unable(store: ObjectStore, what: string): SluiceError {
  return new SluiceError("SLU-3004", `${store.url} doesn't keep writers apart: ${what}`);
}

function unanswered(store: ObjectStore, { cause }: PutOutcome & { readonly outcome: "undecided" }): SluiceError {
  return new SluiceError("SLU-3101", `${store.url}: no answer to whether it keeps writers apart`, { cause });
}

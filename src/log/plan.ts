import { SluiceError } from "../errors/error.ts";
import { formatTxid } from "./layout.ts";
import type { LogFile } from "./listing.ts";

/** The files to apply, oldest first, and the state they make. */
export interface Plan {
  readonly txid: number;
  readonly files: readonly LogFile[];
  readonly sizeBytes: number;
}

/**
 * What one more file costs a restore, in bytes that could have been fetched meanwhile: two requests (its index, its
 * body) that mostly overlap with others.
 */
const FILE_COST_BYTES = 64 * 1024;

/**
 * Leaves out what can't be a record of the history: a level-0 object that is younger, by the store's clock, than a
 * higher file that covers its slot. Its PUT arrived after retention had emptied the slot (protocol section 7). Only
 * for logs that Sluice writes: Litestream may upload a snapshot before the records that it covers.
 */
export function withoutStrays(files: readonly LogFile[]): LogFile[] {
  const covers = files.filter((file) => file.level > 0).toSorted((a, b) => a.minTxid - b.minTxid);
  const records = files.filter((file) => file.level === 0).toSorted((a, b) => a.minTxid - b.minTxid);
  const strays = new Set<LogFile>();
  // The covering files that can still reach a record, as a sweep over slots; few overlap at any slot.
  let open: LogFile[] = [];
  let next = 0;
  for (const record of records) {
    for (let cover = covers[next]; cover !== undefined && cover.minTxid <= record.minTxid; cover = covers[++next]) {
      open.push(cover);
    }
    open = open.filter((cover) => cover.maxTxid >= record.minTxid);
    if (open.some((cover) => cover.maxTxid >= record.maxTxid && cover.modifiedMs < record.modifiedMs)) {
      strays.add(record);
    }
  }
  return strays.size === 0 ? [...files] : files.filter((file) => !strays.has(file));
}

/**
 * Every state that the files can make out of one that is there, and the cheapest way to it. Files may overlap, cover each other on several
 * levels, or be missing: a state is reachable when some run of files leads to it, each beginning at or
 * before the slot after the state it's applied to.
 *
 * One pass over the files by the state they end in. The cheapest way to a state goes over the cheapest reachable
 * state in `[minTxid - 1, maxTxid)` of one of the files that end there; as all reachable states so far are below
 * `maxTxid`, that is a minimum over a suffix, which a stack of rising costs answers by binary search.
 */
export class Reachable {
  /** All reachable states, ascending. */
  readonly txids: readonly number[];
  /** For the state of `txids[i]`: the file that ends there, and the index of the state it's applied to; −1: `from`. */
  readonly #via: readonly { readonly file: LogFile; readonly from: number }[];
  readonly #files: readonly LogFile[];
  readonly #from: number;

  /** `from`: the state that is there already; 0 for nothing. */
  constructor(files: readonly LogFile[], from = 0) {
    this.#from = from;
    this.#files = files;
    const txids: number[] = [];
    const via: { file: LogFile; from: number }[] = [];
    const costs: number[] = [];
    const stack: number[] = [];
    const sorted = files
      .filter((file) => file.maxTxid > from)
      .toSorted((a, b) => a.maxTxid - b.maxTxid || b.level - a.level);
    for (let start = 0; start < sorted.length;) {
      const { maxTxid } = sorted[start]!;
      let cheapest = Infinity;
      let step: { file: LogFile; from: number } | undefined;
      let end = start;
      for (; end < sorted.length && sorted[end]!.maxTxid === maxTxid; end++) {
        const file = sorted[end]!;
        const base = file.minTxid - 1 <= from ? -1 : cheapestFrom(stack, txids, file.minTxid - 1);
        if (base === undefined) continue;
        const cost = (base < 0 ? 0 : costs[base]!) + file.sizeBytes + FILE_COST_BYTES;
        if (cost >= cheapest) continue;
        cheapest = cost;
        step = { file, from: base };
      }
      start = end;
      if (step === undefined) continue;
      while (stack.length > 0 && costs[stack.at(-1)!]! >= cheapest) stack.pop();
      stack.push(txids.length);
      txids.push(maxTxid);
      via.push(step);
      costs.push(cheapest);
    }
    this.txids = txids;
    this.#via = via;
  }

  /** The newest reachable state, or undefined when there's none. */
  get newest(): number | undefined {
    return this.txids.at(-1);
  }

  /** The first slot past the newest reachable state from which files exist: the end of a gap; undefined without one. */
  get beyondGap(): number | undefined {
    const newest = this.newest ?? this.#from;
    let first: number | undefined;
    for (const file of this.#files) {
      if (file.maxTxid > newest && (first === undefined || file.minTxid < first)) first = file.minTxid;
    }
    return first;
  }

  /** The cheapest plan for exactly the state after slot `txid`, or undefined when it's not reachable. */
  plan(txid: number): Plan | undefined {
    let index = indexOf(this.txids, txid);
    if (index === undefined) return undefined;
    const files: LogFile[] = [];
    let sizeBytes = 0;
    while (index >= 0) {
      const step: { readonly file: LogFile; readonly from: number } = this.#via[index]!;
      files.push(step.file);
      sizeBytes += step.file.sizeBytes;
      index = step.from;
    }
    return { txid, files: files.toReversed(), sizeBytes };
  }

  /** The nearest reachable states on both sides of `txid`. */
  around(txid: number): { readonly below: number | undefined; readonly above: number | undefined } {
    const at = lowerBound(this.txids, txid);
    return { below: this.txids[at - 1], above: this.txids[at] };
  }

  /** Files that end exactly at `txid`, lowest level first: the first one's header has the time of that record. */
  endingAt(txid: number): LogFile[] {
    return this.#files.filter((file) => file.maxTxid === txid).toSorted((a, b) => a.level - b.level);
  }
}

/** The plan for the newest state. Throws SLU-4501 for an empty log and SLU-4504 where a gap hides newer files. */
export function planNewest(files: readonly LogFile[], url: string): Plan {
  const reachable = new Reachable(files);
  const { newest, beyondGap } = reachable;
  if (beyondGap !== undefined) throw gapError(url, newest, beyondGap);
  const plan = newest === undefined ? undefined : reachable.plan(newest);
  if (plan === undefined) throw emptyError(url);
  return plan;
}

/**
 * The plan that leads a copy in the state after `from` to the newest state; undefined when it is there. Throws
 * SLU-4513 when the log has newer files and none that goes on from it, or ends before it.
 */
export function planOnward(files: readonly LogFile[], from: number, url: string): Plan | undefined {
  const reachable = new Reachable(files, from);
  const { newest, beyondGap } = reachable;
  const head = files.reduce((max, file) => Math.max(max, file.maxTxid), 0);
  if (head < from || beyondGap !== undefined) {
    const found = head < from ? `ends at ${formatTxid(head)}` : `goes on at ${formatTxid(beyondGap!)}`;
    throw new SluiceError("SLU-4513", `${url}: the copy is at TXID ${formatTxid(from)}, the log ${found}`);
  }
  return newest === undefined ? undefined : reachable.plan(newest);
}

/** The plan for exactly the state after slot `txid`. Throws SLU-4501, or SLU-4502 with the nearest there are. */
export function planTxid(files: readonly LogFile[], txid: number, url: string): Plan {
  const reachable = new Reachable(files);
  const plan = reachable.plan(txid);
  if (plan !== undefined) return plan;
  if (reachable.newest === undefined) throw emptyOrGap(reachable, url);
  const { below, above } = reachable.around(txid);
  const nearest = [below, above].filter((t) => t !== undefined).map(formatTxid);
  throw new SluiceError("SLU-4502", `${url}: the state after TXID ${formatTxid(txid)} is not in the log`, {
    hint: `The nearest states there are: ${nearest.join(" and ")}. \`sluice ltx --level all\` lists all files.`,
  });
}

/**
 * The plan for the newest state whose record was written at or before `timestampMs`. `timeOf` gives the header time
 * of a file (ms). Times never decrease along a log, so it's asked for a few states only, by binary search.
 * Throws SLU-4501, or SLU-4503 when even the oldest state that is left is newer; rejects as `timeOf` does.
 */
export async function planTimestamp(
  files: readonly LogFile[],
  timestampMs: number,
  timeOf: (file: LogFile) => Promise<number>,
  url: string,
): Promise<Plan> {
  const reachable = new Reachable(files);
  const { txids, newest, beyondGap } = reachable;
  if (newest === undefined) throw emptyOrGap(reachable, url);
  const timeAt = (index: number): Promise<number> => timeOf(reachable.endingAt(txids[index]!)[0]!);
  let low = 0;
  let high = txids.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((await timeAt(middle)) <= timestampMs) low = middle + 1;
    else high = middle;
  }
  if (low === 0) {
    const [first, last] = [await timeAt(0), await timeAt(txids.length - 1)];
    throw new SluiceError("SLU-4503", `${url}: nothing in the log is as old as ${formatTime(timestampMs)}`, {
      hint: `The log has states from ${formatTime(first)} to ${formatTime(last)}.`,
    });
  }
  // Past a gap there may be states that are nearer to the target: an older one must not pass for them.
  if (low === txids.length && beyondGap !== undefined) {
    const beyond = files.filter((file) => file.maxTxid > newest).toSorted((a, b) => a.maxTxid - b.maxTxid)[0]!;
    if ((await timeOf(beyond)) <= timestampMs) throw gapError(url, newest, beyondGap);
  }
  return reachable.plan(txids[low - 1]!)!;
}

function formatTime(ms: number): string {
  return new Date(ms).toISOString();
}

function emptyError(url: string): SluiceError {
  return new SluiceError("SLU-4501", `${url}: there is no backup here`);
}

function emptyOrGap(reachable: Reachable, url: string): SluiceError {
  const { beyondGap } = reachable;
  return beyondGap === undefined ? emptyError(url) : gapError(url, undefined, beyondGap);
}

function gapError(url: string, newest: number | undefined, beyond: number): SluiceError {
  const until = newest === undefined ? "has no beginning" : `ends at TXID ${formatTxid(newest)}`;
  return new SluiceError(
    "SLU-4504",
    `${url}: the log ${until} and goes on at ${formatTxid(beyond)}: files are missing`,
    {
      ...(newest !== undefined && {
        hint: `The newest state before the gap comes back with \`--txid ${formatTxid(newest)}\`. What is behind it needs the missing files, or a snapshot from the live database.`,
      }),
    },
  );
}

/** Index of the first element that is not less than `value`. */
function lowerBound(sorted: readonly number[], value: number): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (sorted[middle]! < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

function indexOf(sorted: readonly number[], value: number): number | undefined {
  const at = lowerBound(sorted, value);
  return sorted[at] === value ? at : undefined;
}

/** Index of the cheapest state of `least` or later: the first on the stack that is not before it. */
function cheapestFrom(stack: readonly number[], txids: readonly number[], least: number): number | undefined {
  let low = 0;
  let high = stack.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (txids[stack[middle]!]! < least) low = middle + 1;
    else high = middle;
  }
  return stack[low];
}

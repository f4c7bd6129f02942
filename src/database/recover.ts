import { isSluiceError } from "../errors/error.ts";
import { lockPage } from "../ltx/header.ts";
import { PageSum } from "../ltx/page-sum.ts";
import { SHARED_BUFFER_BYTES } from "./io.ts";
import { localSlots, readLocal, rollForward } from "./local-batches.ts";
import type { PageView } from "./page-view.ts";
import { PageSums } from "./page-sums.ts";
import type { PersistedState } from "./state.ts";
import { loadSums } from "./sums-file.ts";

/** What the persisted state, the local batches and the database say of each other at start. */
export type Recovery =
  /** The database is the sealed state and the commits that the WAL shows after it. */
  | { readonly kind: "in-step"; readonly sums: PageSums }
  /** It was changed while Sluice was away: `pages` differ from the sealed state. */
  | { readonly kind: "changed"; readonly sums: PageSums; readonly pages: readonly number[] }
  /**
   * A power loss took sealed commits from it: `pages` differ from the sealed state, and of these `unknown` ones hold what
   * no local batch knows of. `checksum` is that of the database as it is.
   */
  | {
      readonly kind: "behind";
      readonly slots: readonly number[];
      readonly pages: readonly number[];
      readonly unknown: readonly number[];
      readonly checksum: bigint;
    }
  /** What was sealed is not known any more, or never was: all pages count as changed. */
  | { readonly kind: "unknown"; readonly reason: string };

export interface RecoverOptions {
  readonly stateDir: string;
  readonly state: PersistedState | undefined;
  /** The WAL has the sealed frame, with its salts and checksum: what follows it is known, commit by commit. */
  readonly continues: boolean;
  /** The WAL is of the sealed frame's generation, and yet has another frame there or none: its end was lost. */
  readonly endLost: boolean;
  /** The file is as a clean stop left it, and there is nothing in the WAL. */
  readonly untouched: boolean;
  /** The boot of the machine now. */
  readonly bootId: string;
  /** The database as it is; read only where nothing else can tell. */
  readonly view: PageView;
}

/**
 * Decides what the open batch is at start (protocol sections 3 and 7; the order is that of cost). The position is
 * recovered from the WAL or by comparing every page; it is never guessed.
 */
export async function recover(options: RecoverOptions): Promise<Recovery> {
  const { state, stateDir, continues, untouched, view } = options;
  if (state === undefined || state.sealedTxid === 0) return { kind: "unknown", reason: "nothing was sealed before" };
  const sums = await sealedSums(stateDir, state);
  if (sums === undefined) return { kind: "unknown", reason: "the table of page sums is lost" };
  if (continues || untouched) return { kind: "in-step", sums };
  const live = await sumsOf(view);
  const pages = differing(sums, live);
  if (pages.length === 0 && live.count === sums.count) return { kind: "in-step", sums };
  // A clean stop leaves nothing that a power loss could take.
  if (state.clean === undefined && state.bootId !== options.bootId) {
    const behind = await lostTail(stateDir, state, pages, live);
    // Content that no batch knows, and no sign of a loss: that is what an application did while Sluice was away.
    const isLoss = options.endLost || state.puttingBack || behind?.unknown.length === 0;
    if (behind !== undefined && isLoss) return behind;
  }
  return { kind: "changed", sums, pages };
}

/** The sums of the sealed state: the saved table, brought forward by local batches; undefined when that fails. */
async function sealedSums(stateDir: string, state: PersistedState): Promise<PageSums | undefined> {
  const saved = await loadSums(stateDir);
  let sums = saved?.sums ?? new PageSums();
  let txid = saved?.txid ?? 0;
  if (txid > state.sealedTxid) return undefined;
  try {
    while (txid < state.sealedTxid) {
      txid += 1;
      // A record of all pages needs no table before it.
      const header = await rollForward(stateDir, txid, sums);
      if (header.maxTxid !== txid) return undefined;
    }
  } catch (error) {
    if (!isSluiceError(error)) throw error;
    return undefined;
  }
  sums = sums.count === state.sealedSize ? sums : new PageSums();
  return sums.checksum === state.sealedChecksum ? sums : undefined;
}

/** The sums of all pages, with turns for others in between. Throws SLU-2010. */
export async function sumsOf(view: PageView): Promise<PageSums> {
  const { pageSize, pageCount } = view;
  const words = new Int32Array(2 * pageCount);
  const sum = new PageSum(pageSize);
  const lock = lockPage(pageSize);
  const most = SHARED_BUFFER_BYTES / pageSize;
  const chunk = Buffer.allocUnsafe(SHARED_BUFFER_BYTES);
  for (let first = 1; first <= pageCount; first += most) {
    const count = Math.min(most, pageCount - first + 1);
    await view.read(first, chunk.subarray(0, count * pageSize));
    for (let i = 0; i < count; i++) {
      if (first + i === lock) continue;
      sum.of(first + i, chunk, i * pageSize, (i + 1) * pageSize);
      words[2 * (first + i - 1)] = sum.lo;
      words[2 * (first + i - 1) + 1] = sum.hi;
    }
  }
  return new PageSums(words, pageCount);
}

/** Pages of `live` that are not as in `sealed`. */
function differing(sealed: PageSums, live: PageSums): number[] {
  const pages: number[] = [];
  for (let pgno = 1; pgno <= live.count; pgno++) {
    const same = pgno <= sealed.count && sealed.lo(pgno) === live.lo(pgno) && sealed.hi(pgno) === live.hi(pgno);
    if (!same) pages.push(pgno);
  }
  return pages;
}

/**
 * After a power loss with `synchronous` below FULL the end of the WAL is gone, while Sluice's own files were synced: then
 * every page that differs is in a local batch. Pages whose content none of these files knows are reported: they may
 * be a cut of a batch, or an application's that ran before Sluice.
 */
async function lostTail(
  stateDir: string,
  state: PersistedState,
  pages: readonly number[],
  live: PageSums,
): Promise<Extract<Recovery, { kind: "behind" }> | undefined> {
  const slots = localSlots(stateDir).filter((txid) => txid <= state.sealedTxid);
  const earlier = (await loadSums(stateDir))?.sums ?? new PageSums();
  const wanted = new Set(pages);
  const covered = new Set<number>();
  const known = new Set<number>();
  const note = (pgno: number, lo: number, hi: number): void => {
    if (pgno <= live.count && live.lo(pgno) === lo && live.hi(pgno) === hi) known.add(pgno);
  };
  for (const pgno of pages) if (pgno <= earlier.count) note(pgno, earlier.lo(pgno), earlier.hi(pgno));
  for (const txid of slots) {
    await readLocal(stateDir, txid, {
      page: (pgno, _content, sum) => {
        if (wanted.has(pgno)) note(pgno, sum.lo, sum.hi);
        covered.add(pgno);
      },
    });
  }
  const last = slots.at(-1);
  if (last !== state.sealedTxid || pages.some((pgno) => pgno <= state.sealedSize && !covered.has(pgno)))
    return undefined;
  const unknown = pages.filter((pgno) => !known.has(pgno));
  return { kind: "behind", slots, pages, unknown, checksum: live.checksum };
}

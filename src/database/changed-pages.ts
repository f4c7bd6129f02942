/** Pages that are kept one by one; past that all pages count as changed. */
const MOST_PAGES = 2 ** 20;

/**
 * What a replica has on top of the last record that it contains: its open batch (protocol section 7, Placing), with the
 * `seq` of the commit that changed each page last. All of its commits are of one epoch.
 */
export class ChangedPages {
  readonly #seqs = new Map<number, number>();
  /** Every page counts as changed, at the latest by this commit. */
  #everythingSeq: number | undefined;

  get isEmpty(): boolean {
    return this.#seqs.size === 0 && this.#everythingSeq === undefined;
  }

  get isEverything(): boolean {
    return this.#everythingSeq !== undefined;
  }

  /** Their numbers, in no order; without meaning where `isEverything`. */
  get numbers(): Iterable<number> {
    return this.#seqs.keys();
  }

  add(page: number, seq: number): void {
    if (this.#everythingSeq !== undefined) {
      this.#everythingSeq = seq;
      return;
    }
    this.#seqs.set(page, seq);
    if (this.#seqs.size > MOST_PAGES) this.everything(seq);
  }

  /** It is not known which pages changed. */
  everything(seq: number): void {
    this.#seqs.clear();
    this.#everythingSeq = seq;
  }

  /** A record holds the commits up to `seq`: pages that changed last by one of them leave. */
  cut(seq: number): void {
    if (this.#everythingSeq !== undefined && this.#everythingSeq <= seq) this.#everythingSeq = undefined;
    for (const [page, changed] of this.#seqs) if (changed <= seq) this.#seqs.delete(page);
  }

  clear(): void {
    this.#seqs.clear();
    this.#everythingSeq = undefined;
  }
}

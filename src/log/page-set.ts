/** A set of page numbers of one database: a bit for each. */
export class PageSet {
  #words: Uint32Array;
  #count = 0;

  /** `pageCount`: the largest page number that is expected; larger ones make it grow. */
  constructor(pageCount: number) {
    this.#words = new Uint32Array((pageCount >>> 5) + 1);
  }

  /** How many pages are in it. */
  get size(): number {
    return this.#count;
  }

  has(page: number): boolean {
    return ((this.#words[page >>> 5] ?? 0) & (1 << (page & 31))) !== 0;
  }

  /** Adds a page; false when it was there. */
  add(page: number): boolean {
    const index = page >>> 5;
    if (index >= this.#words.length) this.#grow(index);
    const bit = 1 << (page & 31);
    const word = this.#words[index]!;
    if ((word & bit) !== 0) return false;
    this.#words[index] = word | bit;
    this.#count++;
    return true;
  }

  /** All pages in it, ascending. */
  *[Symbol.iterator](): Generator<number> {
    for (let index = 0; index < this.#words.length; index++) {
      for (let word = this.#words[index]!; word !== 0; word &= word - 1) {
        yield index * 32 + (31 - Math.clz32(word & -word));
      }
    }
  }

  copy(): PageSet {
    const copy = new PageSet(0);
    copy.#words = this.#words.slice();
    copy.#count = this.#count;
    return copy;
  }

  #grow(index: number): void {
    const larger = new Uint32Array(Math.max(index + 1, this.#words.length * 2));
    larger.set(this.#words);
    this.#words = larger;
  }
}

import type { RecordName, ResyncSource } from "../../../src/database/replication.ts";
import { PageSum } from "../../../src/ltx/page-sum.ts";
import type { Position } from "../../../src/ltx/position.ts";
import { checksumOf, PAGE_SIZE } from "../../log/sim/database.ts";
import type { Pages } from "../../log/sim/ltx.ts";

const pageSum = new PageSum(PAGE_SIZE);

/** The sums of all pages, two words a page. */
export function sumsOf(pages: Pages): Int32Array {
  const sums = new Int32Array(2 * pages.size);
  for (const [page, content] of pages) {
    pageSum.of(page, content, 0, PAGE_SIZE);
    sums[2 * (page - 1)] = pageSum.lo;
    sums[2 * (page - 1) + 1] = pageSum.hi;
  }
  return sums;
}

export function pictureOf(position: Position, pages: Pages, record: RecordName, signal: AbortSignal): ResyncSource {
  return {
    head: { before: position, position, pageCount: pages.size, checksum: checksumOf(pages), pages: pages.size },
    record,
    sums: sumsOf(pages),
    signal,
    read: (numbers) => {
      const content = new Uint8Array(numbers.length * PAGE_SIZE);
      numbers.forEach((page, i) => content.set(pages.get(page)!, i * PAGE_SIZE));
      return Promise.resolve(content);
    },
    release: () => undefined,
  };
}

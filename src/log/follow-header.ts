/**
 * Page 1 of a followed file differs from the source's in ten bytes (SQLite's "Database File Format", section 1.3):
 * bytes 18 and 19 say rollback journal, because that is how updates are applied (`follow-apply.ts`), and the file
 * change counter (24–27) and its copy (92–95) count updates, because a reader keeps its cache while they stay the
 * same, and in WAL mode the source's need not move with a commit.
 */
const FORMATS = 18;
const COUNTER = 24;
const COUNTER_COPY = 92;

/** The ten bytes of the source's page 1, to be kept while the file has others. */
export function headerStamp(page1: Uint8Array): Uint8Array {
  const stamp = new Uint8Array(10);
  stamp.set(page1.subarray(FORMATS, FORMATS + 2), 0);
  stamp.set(page1.subarray(COUNTER, COUNTER + 4), 2);
  stamp.set(page1.subarray(COUNTER_COPY, COUNTER_COPY + 4), 6);
  return stamp;
}

/** Puts the source's bytes back into page 1, so that it has the source's checksum. */
export function unstampHeader(page1: Uint8Array, stamp: Uint8Array): void {
  page1.set(stamp.subarray(0, 2), FORMATS);
  page1.set(stamp.subarray(2, 6), COUNTER);
  page1.set(stamp.subarray(6, 10), COUNTER_COPY);
}

/** Makes page 1 that of a followed file after `counter` updates. */
export function stampHeader(page1: Uint8Array, counter: number): void {
  page1.fill(1, FORMATS, FORMATS + 2);
  const view = new DataView(page1.buffer, page1.byteOffset);
  view.setUint32(COUNTER, counter);
  view.setUint32(COUNTER_COPY, counter);
}

/** Whether page 1 is as `stampHeader` left it: a writer other than the follower moves the counter. */
export function hasStamp(page1: Uint8Array, counter: number): boolean {
  const view = new DataView(page1.buffer, page1.byteOffset);
  return page1[FORMATS] === 1 && page1[FORMATS + 1] === 1 && view.getUint32(COUNTER) === counter;
}

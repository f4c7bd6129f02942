/** The seed of this run; set `SLUICE_TEST_SEED` to repeat one. */
export const testSeed = Number(process.env["SLUICE_TEST_SEED"] ?? Math.floor(Math.random() * 1e6));

/** A generator of numbers from 0 to below 1 (mulberry32), so that a run can be repeated. */
export function random(start: number): () => number {
  let state = start;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

import koffi from "koffi";

const CLOCK_BOOTTIME = 7;
const WORD = 2 ** 32;

type ClockGettime = (clock: number, time: Int32Array) => number;

let bound: ClockGettime | undefined;
/** `struct timespec` of 64-bit little-endian Linux: seconds and nanoseconds, two words each. */
const time = new Int32Array(4);

/**
 * ms since the machine was booted, with its suspended time (clock_gettime(2), CLOCK_BOOTTIME), which Node.js's own
 * `performance.now()` (CLOCK_MONOTONIC) leaves out. The same for all processes of one machine. Allocates nothing.
 */
export function bootMs(): number {
  bound ??= koffi.load(null).func("clock_gettime", "int", ["int", "_Out_ int32_t *"]) as unknown as ClockGettime;
  if (bound(CLOCK_BOOTTIME, time) !== 0) throw new Error(`clock_gettime: errno ${koffi.errno()}`);
  return (time[0]! >>> 0) * 1000 + time[1]! * WORD * 1000 + time[2]! / 1e6;
}

/**
 * A position: the name `(epoch, seq)` of the last commit in a state, as one u64 `epoch·2^32 + seq`, ordered as a
 * number. Two nodes at one position have one state (protocol sections 1 and 7).
 */
export type Position = bigint;

/** The state that contains nothing. */
export const NOTHING: Position = 0n;

/** The position `(epoch, seq)`; both are u32. */
export function position(epoch: number, seq: number): Position {
  return (BigInt(epoch) << 32n) | BigInt(seq);
}

export function epochOf(p: Position): number {
  return Number(p >> 32n);
}

export function seqOf(p: Position): number {
  return Number(p & 0xffffffffn);
}

/** 16 lower-case hex digits, as in file names, `NAME-pos`, cookies and messages. */
export function formatPosition(p: Position): string {
  return p.toString(16).padStart(16, "0");
}

import type { DatabaseSnapshot } from "./contract.ts";
import type { RecordName, ResyncSource } from "./replication.ts";

/** A snapshot whose pages are asked for one by one. Owns the snapshot. */
export function resyncSource(
  snapshot: Omit<DatabaseSnapshot, "txid" | "epoch" | "writer" | "timestampMs">,
  sums: Int32Array,
  record: RecordName,
): ResyncSource {
  const { position, pageCount, checksum, pageSize, signal } = snapshot;
  return {
    head: { before: position, position, pageCount, checksum, pages: pageCount },
    record,
    sums,
    signal,
    read: async (numbers) => {
      const content = Buffer.allocUnsafe(numbers.length * pageSize);
      for (let at = 0; at < numbers.length;) {
        let end = at + 1;
        while (end < numbers.length && numbers[end] === numbers[end - 1]! + 1) end++;
        await snapshot.read(numbers[at]!, content.subarray(at * pageSize, end * pageSize));
        at = end;
      }
      return content;
    },
    release: () => snapshot.release(),
  };
}

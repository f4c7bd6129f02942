import { z } from "zod";
import { SluiceError } from "../errors/error.ts";
import type { LeaseRecord } from "./lease.ts";

/** Longer than any record is. */
export const RECORD_BYTES_MAX = 64 * 1024;

const text = z.string().max(4096);
const number = z.int().min(0);
/** It gets into files, headers and logs. */
const name = text.regex(/^\P{Cc}*$/u);
const address = z.union([z.literal(""), z.url({ protocol: /^https?$/ }).max(4096)]);

/** Keys of a later version are let through; what this version must understand is checked. */
const schema = z.object({
  nodeId: text.min(1),
  life: text.min(1),
  nodeName: name,
  advertise: address,
  proxy: address.exactOptional(),
  generation: number,
  counter: number,
  ttlMs: number,
  successor: text.min(1).exactOptional(),
  machine: text.exactOptional(),
  mac: text.exactOptional(),
  released: z.literal(true).exactOptional(),
});

export function encodeRecord(record: LeaseRecord): string {
  return JSON.stringify(record);
}

/** Throws SLU-8002 when it is no record; `place` says where it was found. */
export function decodeRecord(content: string, place: string): LeaseRecord {
  try {
    return schema.parse(JSON.parse(content));
  } catch (cause) {
    throw new SluiceError("SLU-8002", `${place} holds something that is no lease of Sluice's`, { cause });
  }
}

/** Whether two records were made by one call: the same owner in the same life, and the same number of the write. */
export function isSameWrite(a: LeaseRecord, b: LeaseRecord): boolean {
  return a.nodeId === b.nodeId && a.life === b.life && a.counter === b.counter && a.generation === b.generation;
}

import { readFileSync } from "node:fs";

/** Identifies this boot of the machine (proc(5), random/boot_id). */
export function bootId(): string {
  return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
}

/**
 * For `node --import`: kills its own process in a certain call that changes a file. SLUICE_KILL is JSON: the function's
 * name, the end of the file's path as a regular expression, which of these calls, and before it, after it or half done
 * (writes). It is how a test dies at a point it has chosen, in the real program.
 */
import fs, { readlinkSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";

type AnyFunction = (...args: unknown[]) => unknown;

export interface KillPoint {
  readonly call: "link" | "rm" | "writeSync";
  readonly file: string;
  readonly nth: number;
  readonly when: "before" | "half" | "after";
}

const point = JSON.parse(process.env["SLUICE_KILL"] ?? "null") as KillPoint | null;
if (point) {
  const pattern = new RegExp(point.file);
  let calls = 0;
  const dies = (file: string): boolean => pattern.test(file) && ++calls === point.nth;
  const die = (): void => void process.kill(process.pid, "SIGKILL");
  if (point.call === "writeSync") {
    const { writeSync } = fs;
    (fs as unknown as Record<string, AnyFunction>)["writeSync"] = (...args) => {
      const [fd, bytes, offset, length, position] = args as [number, Uint8Array, number, number, number];
      if (fd > 2 && dies(readlinkSync(`/proc/self/fd/${fd}`))) {
        if (point.when === "half") writeSync(fd, bytes, offset, Math.floor(length / 2), position);
        die();
      }
      return (writeSync as AnyFunction)(...args);
    };
  } else {
    const promises = fs.promises as unknown as Record<string, AnyFunction>;
    const original = promises[point.call]!;
    promises[point.call] = async (...args) => {
      const hit = dies(String(args[point.call === "link" ? 1 : 0]));
      if (hit && point.when === "before") die();
      const result = await original(...args);
      if (hit) die();
      return result;
    };
  }
  syncBuiltinESMExports();
}

import { spawnSync } from "node:child_process";
import { globSync, readFileSync } from "node:fs";
import os from "node:os";
import { parseArgs } from "node:util";

// `npm run fuzz -- --minutes N`: every test made with `fuzz`, each with new seeds and its part of the time.
const { values, positionals } = parseArgs({
  options: { minutes: { type: "string", default: "20" } },
  allowPositionals: true,
});
const files = globSync("test/**/fuzz.test.ts").filter((file) => positionals.every((part) => file.includes(part)));
const properties = files.flatMap((file) => readFileSync(file, "utf8").match(/^\s*fuzz\(/gm) ?? []).length;
const workers = Math.min(2, os.availableParallelism(), files.length);
const seconds = Math.ceil((Number(values.minutes) * 60 * workers) / properties);
console.log(`${properties} properties in ${files.length} files, ${seconds} s each, ${workers} at a time`);
const { status } = spawnSync("npx", ["vitest", "run", "--maxWorkers", String(workers), ...files], {
  stdio: "inherit",
  env: { ...process.env, SLUICE_FUZZ_SECONDS: String(seconds) },
});
process.exit(status ?? 1);

/**
 * `npm run coverage [FILES …]`: the tests, and how many lines of `src/` they ran, in all their processes: the tests' own,
 * the Sluice that they start, its guardian and its threads. What a process did that was killed (SIGKILL) isn't counted:
 * it can leave nothing. Fails when a test does, or below the limit.
 */
import { spawnSync } from "node:child_process";
import { readFileSync, rmSync } from "node:fs";
import { stripTypeScriptTypes } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { CoverageReport } from "monocart-coverage-reports";

const LINES_MIN_PERCENT = 90;
const root = path.resolve(import.meta.dirname, "../..");
const output = path.join(root, "coverage");
const raw = path.join(output, "raw");

/** The file as Node.js ran it: with blanks where its types were, and so with every line in its place. */
function asRun(entry: { url: string; source?: string }): void {
  entry.source = stripTypeScriptTypes(readFileSync(fileURLToPath(entry.url), "utf8"));
}

rmSync(output, { recursive: true, force: true });
// Functions out of the compile cache would not be counted.
const env = { ...process.env, NODE_V8_COVERAGE: raw, NODE_DISABLE_COMPILE_CACHE: "1" };
const vitest = path.join(root, "node_modules/.bin/vitest");
const { status } = spawnSync(vitest, ["run", ...process.argv.slice(2)], { cwd: root, env, stdio: "inherit" });

const report = new CoverageReport({
  baseDir: root,
  outputDir: output,
  // Raw data is in there.
  clean: false,
  reports: ["v8", "console-summary"],
  entryFilter: ({ url }) => url.startsWith(`file://${root}/src/`),
  onEntry: async (entry) => asRun(entry),
  // Files that nobody loaded count, too.
  all: { dir: ["src"], filter: "**/*.ts", transformer: async (entry) => asRun(entry) },
});
await report.addFromDir(raw);
const percent = Number((await report.generate())?.summary.lines?.pct ?? 0);
console.log(`Lines of src/: ${percent} %; each of them in ${output}/index.html`);
process.exitCode = status === 0 && percent >= LINES_MIN_PERCENT ? 0 : 1;

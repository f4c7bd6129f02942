/**
 * Sluice's supervision in a process of its own, as `sluice run` uses it, with a node that only notes what is asked of it:
 * `sluice.ts DIR OPTIONS -- CMD ARG…`, notes in DIR/notes. SIGURG changes the role. What a test does to this process it can't do to vitest.
 */
import { appendFileSync, openSync } from "node:fs";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { pino } from "pino";
import { execEntries, type Role } from "../../src/supervise/exec-list.ts";
import { runApplication } from "../../src/supervise/run.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    exec: { type: "string" },
    role: { type: "string" },
    "stop-limit-ms": { type: "string" },
    "start-ms": { type: "string" },
    "guardian-file": { type: "string" },
    "start-fails": { type: "boolean" },
    missing: { type: "string" },
    "fatal-after-ms": { type: "string" },
  },
});
const [dir = "", ...argv] = positionals;
const note = (text: string): void => appendFileSync(path.join(dir, "notes"), `${text}\n`);
const fatal = new AbortController();
let role: Role = values.role === "replica" ? "replica" : "primary";
if (values["fatal-after-ms"]) {
  setTimeout(() => fatal.abort(new Error("the store belongs to another writer")), Number(values["fatal-after-ms"]));
}
process.exitCode = await runApplication({
  node: {
    get role() {
      return role;
    },
    onRole: (listener) => {
      process.on("SIGURG", () => {
        role = role === "primary" ? "replica" : "primary";
        note(role);
        listener();
      });
    },
    async start() {
      note("start");
      await delay(Number(values["start-ms"] ?? 0));
      if (values["start-fails"]) throw new Error("the store is out of reach");
      note("started");
    },
    async stop() {
      note("stop");
      return values.missing === undefined ? [] : [values.missing];
    },
  },
  entries: values.exec
    ? execEntries(JSON.parse(values.exec) as Parameters<typeof execEntries>[0])
    : argv.length > 0
      ? [{ argv, on: "any", wait: false }]
      : [],
  guardianFile: values["guardian-file"] ?? path.join(dir, "guardian.json"),
  env: process.env,
  // A descriptor of its own: standard output is the application's.
  log: pino({ base: null }, pino.destination({ fd: openSync(path.join(dir, "log"), "a"), sync: true })),
  stopLimitMs: Number(values["stop-limit-ms"] ?? 10_000),
  fatal: fatal.signal,
});
note(`status ${process.exitCode}`);
process.exit();

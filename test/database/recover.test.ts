import { existsSync, readFileSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { StateFile } from "../../src/database/state.ts";
import { runPython, runPythonBeside, scratch } from "./apps.ts";
import { MemoryLog } from "./logged.ts";

let dir: ReturnType<typeof scratch>;
let path: string;
const logs: MemoryLog[] = [];
beforeEach(() => {
  dir = scratch("recover");
  path = dir.path("app.db");
  runPython(path, `db.execute("pragma journal_mode=wal"); db.execute("create table t(a)")`);
});
afterEach(async () => {
  for (const log of logs.splice(0)) await log.database.close({ merge: false });
  dir.remove();
});

const rows = (n: number): string => `for i in range(${n}): db.execute("insert into t values(randomblob(100))")\n`;

async function otherBoot(stateDir: string): Promise<void> {
  const file = new StateFile(stateDir);
  await file.write({ ...file.state!, bootId: "an earlier one" });
  file.close();
}

test("what an application changed after a clean stop and a restart of the machine is kept, not taken for a power loss", async () => {
  const log = await MemoryLog.begin(path);
  await runPythonBeside(path, rows(5));
  await log.flush();
  await log.database.close();
  const { stateDir } = log.database;
  await otherBoot(stateDir);
  // The pages that it changes are all in local batches.
  runPython(path, rows(5));
  const next = await MemoryLog.begin(path, {}, log.pages);
  logs.push(next);
  expect(next.events[0]).toMatchObject({ type: "recovered", how: "changed" });
  expect(existsSync(`${stateDir}/quarantine`)).toBe(false);
  await next.flush();
  await next.database.close();
  expect(runPython(path, "print(db.execute('select count(*) from t').fetchone()[0])")).toBe("10");
  expect(next.bytes.equals(readFileSync(path))).toBe(true);
});

/**
 * A Sluice of one database and a log in a directory: kill-at.ts DB LOG [N]. Seals, confirms, merges and ends; in the Nth
 * call that changes a file it is killed, a write when half of it is done. Without N it prints how many calls there were.
 * Exits with 3 when a slot of the log would get other content.
 */
import { execFileSync } from "node:child_process";
import fs, { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { join } from "node:path";

const [path, log, at = "0"] = process.argv.slice(2) as [string, string, string?];
mkdirSync(log, { recursive: true });
let calls = 0;

function dies(): boolean {
  return ++calls === Number(at);
}

const { writeSync } = fs;
type AnyFunction = (...args: unknown[]) => unknown;
const functions = fs as unknown as Record<string, AnyFunction>;
const names = [
  "ftruncate",
  "ftruncateSync",
  "fsync",
  "fsyncSync",
  "fdatasync",
  "fdatasyncSync",
  "renameSync",
  "rmSync",
];
for (const name of names) {
  const original = functions[name]!;
  functions[name] = (...args) => {
    if (dies()) process.kill(process.pid, "SIGKILL");
    return original(...args);
  };
}
functions["writeSync"] = (...args) => {
  const [fd, bytes, offset, length, position] = args as [number, Uint8Array, number, number, number];
  // Standard output is none of Sluice's files.
  if (fd > 2 && dies()) {
    writeSync(fd, bytes, offset, Math.floor(length / 2), position);
    process.kill(process.pid, "SIGKILL");
  }
  return writeSync(fd, bytes, offset, length, position);
};
syncBuiltinESMExports();

const { Database } = await import("../../src/database/database.ts");
const pageBytes = 4096;
const database = await Database.open(path, {
  limits: { backfillFrames: 10, restartBytes: 30 * pageBytes },
  onEvent: (event) => {
    if (event.type === "failed" || event.type === "lost") console.log(event.type, event.error);
  },
});

async function ship(): Promise<void> {
  for (let batch = database.frozen[0]; batch !== undefined; batch = database.frozen[0]) {
    const slot = join(log, String(batch.txid));
    if (!existsSync(slot)) {
      copyFileSync(batch.path, `${slot}.tmp`);
      renameSync(`${slot}.tmp`, slot);
    } else if (!readFileSync(slot).equals(readFileSync(batch.path))) {
      process.exit(3);
    }
    await database.confirm(batch.txid);
  }
}

function commit(code: string): void {
  const script = `import sqlite3; db = sqlite3.connect(${JSON.stringify(path)}, timeout=10, isolation_level=None)\n${code}`;
  execFileSync("python3", ["-c", script]);
}

await database.bindLog({ logId: "log", nodeId: "node" });
await ship();
const epoch = database.logState!.confirmed.txid + 1;
await database.freezeTakeover({ txid: epoch, writer: BigInt(epoch), minTimestampMs: 0 });
await ship();
await database.begin(epoch, BigInt(epoch));
commit(`for i in range(30): db.execute("insert into t values(randomblob(5000))")`);
await database.freeze();
await ship();
commit(`db.execute("delete from t where rowid % 3 = 0"); db.execute("vacuum")`);
await database.freeze();
await ship();
commit(`db.execute("insert into t values(1)")`);
await database.freeze();
await ship();
await database.close();
console.log(calls);

/**
 * A process with a guardian that holds the locks of a closed gate: `holder.ts DATABASE GUARDIAN-FILE CMD ARG…`. Prints
 * `up`, releases them when a line comes in, and prints `released`.
 */
import { closeSync, openSync } from "node:fs";
import { SHARED_FIRST, SHARED_SIZE, tryLock, WAL_DMS_LOCK, WAL_WRITE_LOCK } from "../../src/sqlite/locks.ts";
import { Guardian } from "../../src/supervise/guardian-client.ts";

const [database = "", file = "", ...argv] = process.argv.slice(2);
const guardian = await Guardian.start(file);
const db = openSync(database, "r+");
const shm = openSync(`${database}-shm`, "r+");
tryLock(db, "shared", SHARED_FIRST, SHARED_SIZE);
tryLock(shm, "shared", WAL_DMS_LOCK);
tryLock(shm, "shared", WAL_WRITE_LOCK);
await Promise.all([
  guardian.hold("other", [openSync("/dev/null", "r")]),
  guardian.hold(database, [db, shm]),
  guardian.hold("other", [openSync("/dev/zero", "r")]),
]);
// From here on only the guardian has them.
closeSync(db);
closeSync(shm);
const refused = await guardian.hold("nothing", [999_999]).catch((error: { code: string }) => error.code);
const command = guardian.run(argv, process.env);
await command.started;
console.log(`up ${refused as string}`);
process.stdin.once("data", () => {
  guardian.release(database);
  console.log("released");
});
await command.exited;

/**
 * A Sluice of one database and a log in a directory, to be killed at any moment:
 * sluice-process.ts DB LOG [LIMITS as JSON]. Prints "begun" and then "confirmed TXID" again and again. Ends cleanly on
 * SIGTERM; exits with 3 when a slot of the log would get other content.
 */
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync } from "node:fs";
import { join } from "node:path";
import { Database } from "../../src/database/database.ts";

// Before anything is printed: whoever reads it may end this process at once.
const stop = new AbortController();
process.on("SIGTERM", () => stop.abort());

const [path, log, limits = "{}"] = process.argv.slice(2) as [string, string, string?];
mkdirSync(log, { recursive: true });

const database = await Database.open(path, {
  limits: JSON.parse(limits),
  onEvent: (event) => {
    if (event.type === "failed" || event.type === "lost") console.log(event.type, event.error);
    else if (event.type === "recovered") console.log(event.type, event.how, event.detail);
  },
});

async function ship(): Promise<void> {
  for (let batch = database.frozen[0]; batch !== undefined; batch = database.frozen[0]) {
    const slot = join(log, String(batch.txid));
    if (!existsSync(slot)) {
      copyFileSync(batch.path, `${slot}.tmp`);
      renameSync(`${slot}.tmp`, slot);
    } else if (!readFileSync(slot).equals(readFileSync(batch.path))) {
      console.log(`slot ${batch.txid} has other content`);
      process.exit(3);
    }
    await database.confirm(batch.txid);
    console.log("confirmed", batch.txid);
  }
}

await database.bindLog({ logId: "log", nodeId: "node" });
await ship();
const epoch = database.logState!.confirmed.txid + 1;
await database.freezeTakeover({ txid: epoch, writer: BigInt(epoch), minTimestampMs: 0 });
await ship();
await database.begin(epoch, BigInt(epoch));
console.log("begun");

while (!stop.signal.aborted) {
  await database.freeze();
  await ship();
  await new Promise((resolve) => setTimeout(resolve, 40));
}
await database.freeze();
await ship();
await database.close();
console.log("closed");

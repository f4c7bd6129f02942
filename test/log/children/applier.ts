// Applies the images v1.db, v2.db, … of a directory to the followed file, for ever, one after the other and round
// again. Usage: applier.ts DIRECTORY FOLLOWED. Prints a line for each update.
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { applyAtomically } from "../../../src/log/follow-apply.ts";
import { runSqlite } from "../../../src/log/integrity.ts";

const [directory, followed] = process.argv.slice(2) as [string, string];
let images = 0;
while (existsSync(join(directory, `v${images + 1}.db`))) images++;

if (existsSync(`${followed}-journal`)) await runSqlite({ task: "merge", path: followed });
for (;;) {
  const header = readFileSync(followed).subarray(0, 100);
  const counter = header.readUInt32BE(24);
  const image = readFileSync(join(directory, `v${(counter % images) + 1}.db`));
  const pageSize = image.readUInt16BE(16);
  const pageCount = image.length / pageSize;
  const applied = await applyAtomically(
    followed,
    {
      pageSize,
      pageCount,
      pages: Array.from({ length: pageCount }, (_, i) => i + 1),
      read: (page, into) => {
        image.copy(into, 0, (page - 1) * pageSize, page * pageSize);
        return Promise.resolve();
      },
    },
    { counter, readersWaitMs: 1000, onPage: () => {} },
  );
  console.log(applied ? "applied" : "put off");
}

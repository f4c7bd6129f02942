// Restores a bucket to a file, replacing it. Usage: restorer.ts BUCKET FILE [TXID]. Prints the phases it enters.
import { restore } from "../../../src/log/restore.ts";
import { DirectoryStore } from "../../../src/store/directory.ts";

const [bucket, path, txid] = process.argv.slice(2) as [string, string, string?];
await restore({
  store: new DirectoryStore(bucket),
  prefix: "",
  path,
  force: true,
  ...(txid !== undefined && { txid: Number(txid) }),
  onProgress: ({ phase, bytesDone }) => process.stdout.write(`${phase} ${bytesDone}\n`),
});
process.stdout.write("done\n");

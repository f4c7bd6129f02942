// Follows a bucket into a file until killed. Usage: follower.ts BUCKET FILE. Prints each TXID that it has reached.
import { follow } from "../../../src/log/follow.ts";
import { DirectoryStore } from "../../../src/store/directory.ts";

const [bucket, path] = process.argv.slice(2) as [string, string];
await follow({
  store: new DirectoryStore(bucket),
  prefix: "",
  path,
  intervalMs: 20,
  onState: ({ txid }) => process.stdout.write(`txid ${txid}\n`),
  onProblem: (error) => process.stdout.write(`problem ${String((error as { code?: string }).code)}\n`),
});

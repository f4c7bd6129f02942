// Reads a followed file until its standard input ends: each transaction must see one version, whole. Prints how many
// it saw; exits 1 with what was wrong. Usage: reader.ts FOLLOWED
import Database from "better-sqlite3";

const db = new Database(process.argv[2], { timeout: 20_000, fileMustExist: true });
const versions = db.prepare("SELECT count(DISTINCT ver) AS n, min(ver) AS ver, count(*) AS rows FROM kv");
const meta = db.prepare("SELECT ver, rows FROM meta");
let seen = 0;
let last = 0;
const input = { ended: false };
process.stdin.on("end", () => (input.ended = true)).resume();
while (!input.ended) {
  db.exec("BEGIN");
  const a = versions.get() as { n: number; ver: number; rows: number };
  const b = meta.get() as { ver: number; rows: number };
  if (a.n !== 1 || a.ver !== b.ver || a.rows !== b.rows) throw new Error(JSON.stringify([a, b]));
  if (seen % 10 === 0 && db.pragma("quick_check", { simple: true }) !== "ok") throw new Error("quick_check");
  db.exec("COMMIT");
  if (a.ver !== last) seen++;
  last = a.ver;
  await new Promise((resolve) => setImmediate(resolve));
}
console.log(seen);

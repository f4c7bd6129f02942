/** A small site: POST adds a row, GET counts them. web.ts DB PORT */
import { createServer } from "node:http";
import Sqlite from "better-sqlite3";

const [file, port] = process.argv.slice(2);
const count = (): number => db.prepare("select count(*) from visit").pluck().get() as number;
const db = new Sqlite(file, { timeout: 10_000 });
db.pragma("journal_mode = wal");
db.exec("create table if not exists visit(who)");
const server = createServer((request, response) => {
  try {
    if (request.method === "POST") db.prepare("insert into visit values(?)").run(request.url);
    response.end(`${count()}\n`);
  } catch (error) {
    response.writeHead(500).end(String(error));
  }
});
server.listen(Number(port), "127.0.0.1");

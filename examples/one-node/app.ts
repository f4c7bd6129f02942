/**
 * A guest book over HTTP: an ordinary application with SQLite beside it. It knows nothing of Sluice.
 *
 * usage: app.ts DATABASE PORT     POST /notes (the text) answers 201 once it's committed; GET /notes answers them all;
 *                                 DELETE /notes forgets them
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { text } from "node:stream/consumers";
import Database from "better-sqlite3";

const [file, port] = process.argv.slice(2);
if (!file || !port) throw new Error("usage: app.ts DATABASE PORT");

const db = new Database(file, { timeout: 5000 });
db.pragma("journal_mode = wal");
db.exec("create table if not exists note(id integer primary key, body text not null)");
const insert = db.prepare("insert into note(body) values(?)");
const all = db.prepare("select body from note order by id").pluck();
const forget = db.prepare("delete from note");

const server = createServer((request, response) => void answer(request, response));
server.listen(Number(port), "127.0.0.1");
process.on("SIGTERM", () => {
  server.close();
  server.closeAllConnections();
  db.close();
});

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const body = await text(request);
  if (request.method === "POST") insert.run(body);
  else if (request.method === "DELETE") forget.run();
  response.writeHead(request.method === "POST" ? 201 : 200, { "content-type": "application/json" });
  response.end(request.method === "GET" ? JSON.stringify(all.all()) : "");
}

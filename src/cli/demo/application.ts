/**
 * The demo's application: a ledger over HTTP, as anybody would write it, with nothing of Sluice in it.
 * `application.ts DB PORT`: POST /entries with {"key", "value"}; GET /entries/KEY.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import Database from "better-sqlite3";

const [file = "", port = "0"] = process.argv.slice(2);
const db = new Database(file, { timeout: 2_000 });
const CREATE = "create table if not exists entry(key text primary key, value text not null)";

async function add(request: IncomingMessage, response: ServerResponse): Promise<void> {
  let body = "";
  for await (const chunk of request) body += String(chunk);
  const { key, value } = JSON.parse(body) as { key: string; value: string };
  db.exec(CREATE);
  db.prepare("insert or replace into entry(key, value) values(?, ?)").run(key, value);
  answer(response, 201, { key });
}

function find(key: string, response: ServerResponse): void {
  const known = db.prepare("select 1 from sqlite_schema where name = 'entry'").get() !== undefined;
  const value = known ? db.prepare("select value from entry where key = ?").pluck().get(key) : undefined;
  answer(response, value === undefined ? 404 : 200, { key, value });
}

function answer(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(body));
}

createServer((request, response) => {
  const { method, url = "/" } = request;
  if (method === "POST") {
    add(request, response).catch((error: unknown) => answer(response, 500, { error: String(error) }));
    return;
  }
  try {
    find(decodeURIComponent(url.slice("/entries/".length)), response);
  } catch (error) {
    answer(response, 500, { error: String(error) });
  }
}).listen(Number(port), "127.0.0.1");

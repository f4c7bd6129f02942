/**
 * The smallest application that writes, so that what is measured is what stands before it: each request is one commit, with
 * SQLite's defaults for its durability. `entries.ts DB PORT`: POST with {"key", "value"}; anything else is 404.
 */
import { createServer } from "node:net";
import Database from "better-sqlite3";

const [file = "", port = "0"] = process.argv.slice(2);
const db = new Database(file, { timeout: 2_000 });
db.exec("create table if not exists entry(key text primary key, value text not null)");
const insert = db.prepare("insert into entry(key, value) values(?, ?)");

function answer(status: string): string {
  return `HTTP/1.1 ${status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`;
}

createServer((socket) => {
  let request = "";
  socket.setNoDelay(true);
  socket.on("error", () => socket.destroy());
  socket.on("data", (data: Buffer) => {
    request += data.toString("latin1");
    const body = request.indexOf("\r\n\r\n") + 4;
    if (body === 3) return;
    const length = Number(/\r\ncontent-length: (\d+)/i.exec(request)?.[1] ?? 0);
    if (request.length < body + length) return;
    const isWrite = request.startsWith("POST");
    if (isWrite) {
      const { key, value } = JSON.parse(request.slice(body)) as { key: string; value: string };
      insert.run(key, value);
    }
    socket.end(answer(isWrite ? "201 Created" : "404 Not Found"));
  });
}).listen(Number(port), "127.0.0.1");

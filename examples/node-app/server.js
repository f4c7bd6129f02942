/**
 * A guest book. GET /notes shows all notes, POST /notes (a text) adds one; GET / counts its visits, a write in a GET.
 *
 * On a replica the two reads are answered here. Sluice's proxy sends the POST to the primary without asking; the GET is
 * tried here, its write is refused, and `replayErrors` has the whole request replayed on the primary.
 */
import express from "express";
import { replayErrors, sluice } from "sluice/connect";
import { file, open } from "./database.js";

const db = open();
const app = express();
app.use(sluice({ databases: file, connections: { [file]: db } }));

app.get("/notes", (_request, response) => {
  response.json(db.prepare("SELECT body FROM note ORDER BY id").pluck().all());
});

app.post("/notes", express.text({ type: "*/*", limit: "100kb" }), (request, response) => {
  const { lastInsertRowid } = db.prepare("INSERT INTO note(body) VALUES (?)").run(request.body || "");
  response.status(201).json({ id: Number(lastInsertRowid) });
});

app.get("/", (_request, response) => {
  const count = db.prepare(
    "INSERT INTO visit VALUES ('/', 1) ON CONFLICT DO UPDATE SET count = count + 1 RETURNING count",
  );
  response.json({ visits: count.pluck().get() });
});

// After the routes, before other handlers of errors.
app.use(replayErrors());

const server = app.listen(Number(process.env.PORT ?? 3000), "127.0.0.1");
process.on("SIGTERM", () => {
  server.close(() => db.close());
  server.closeIdleConnections();
});

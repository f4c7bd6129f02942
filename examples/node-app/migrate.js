// Makes the tables. Runs on the primary alone (sluice.yml), before the server there.
import { open } from "./database.js";

const db = open();
db.exec(`
  CREATE TABLE IF NOT EXISTS note(id INTEGER PRIMARY KEY, body TEXT NOT NULL);
  CREATE TABLE IF NOT EXISTS visit(page TEXT PRIMARY KEY, count INTEGER NOT NULL);
`);
db.close();

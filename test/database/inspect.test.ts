import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, expect, test } from "vitest";
import { Database } from "../../src/database/database.ts";

const dir = mkdtempSync(path.join(os.tmpdir(), "sluice-inspect-"));
afterAll(() => rmSync(dir, { recursive: true }));

async function codeOf(file: string): Promise<unknown> {
  return Database.open(file).then(
    () => "opened",
    (error: { code?: string }) => error.code,
  );
}

test.each([
  ["text", Buffer.from("no database, but long enough to be one. ".repeat(100)), "SLU-2016"],
  ["a line of text", Buffer.from("hello"), "SLU-2016"],
  ["an encrypted database", randomBytes(8192), "SLU-2017"],
  ["nothing", Buffer.alloc(0), "SLU-2005"],
  ["less than a page", Buffer.from("SQLite format 3\0"), "SLU-2005"],
  ["a damaged database", Buffer.concat([Buffer.from("SQLite format 3\0"), Buffer.alloc(4080)]), "SLU-2004"],
])("a file that holds %s is refused and not touched", async (_what, content, code) => {
  const file = path.join(dir, `${code}-${content.length}.db`);
  writeFileSync(file, content);
  expect(await codeOf(file)).toBe(code);
  expect(readFileSync(file).equals(content)).toBe(true);
});

test("a file that isn't there, and a directory", async () => {
  expect(await codeOf(path.join(dir, "none.db"))).toBe("SLU-2005");
  mkdirSync(path.join(dir, "folder.db"));
  expect(await codeOf(path.join(dir, "folder.db"))).toBe("SLU-2004");
});

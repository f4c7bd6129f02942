import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { pages } from "../../docs/generate.ts";
import { codes, type CodeEntry } from "../../src/errors/codes.ts";

const docs = path.resolve(import.meta.dirname, "../../docs");

test.each(Object.entries(await pages()))("docs/%s is current; otherwise `npm run docs`", (name, text) => {
  expect(existsSync(path.join(docs, name)) && readFileSync(path.join(docs, name), "utf8")).toBe(text);
});

test("every code is in the catalogue's page, with all that it says", async () => {
  const page = (await pages())["errors.md"];
  for (const [code, { title, meaning, normal, remedy }] of Object.entries<CodeEntry>(codes)) {
    expect(page).toContain(`### ${code}\n`);
    for (const text of [title, meaning, normal, remedy]) expect(page).toContain(text);
  }
});

test("every key of the configuration is in its page", async () => {
  const page = (await pages())["configuration.md"];
  for (const key of ["dbs", "sync-interval", "l0-retention", "listen", "secret", "wait", "secret-access-key", "ttl"])
    expect(page).toMatch(new RegExp(`^\\| \`${key}\``, "m"));
});

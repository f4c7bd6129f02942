import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { KnownNodes } from "../../src/cluster/known-nodes.ts";

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), "sluice-known-"));
});
afterEach(() => rmSync(dir, { recursive: true }));

const url = (i: number): string => `http://10.0.0.${i}:1`;

test("who was met is known after a restart, at the last address", () => {
  const nodes = new KnownNodes(path.join(dir, "not", "there"));
  nodes.add("a", url(1));
  nodes.add("b", url(2));
  nodes.add("a", url(3));
  expect(new KnownNodes(path.join(dir, "not", "there")).urls).toEqual([url(2), url(3)]);
  nodes.replace([["c", url(4)]]);
  expect(new KnownNodes(path.join(dir, "not", "there")).ids).toEqual(["c"]);
});

test("of many the last ones are kept", () => {
  const nodes = new KnownNodes(dir);
  for (let i = 1; i <= 40; i++) nodes.add(`node-${i}`, url(i));
  expect(nodes.ids).toHaveLength(16);
  expect(nodes.ids.at(-1)).toBe("node-40");
});

test("a file that makes no sense is nobody, and a disk that refuses no error", () => {
  for (const text of ["", "{", "{}", '[["a"],[1,2],"x",null]', '[["a","no url"]]']) {
    writeFileSync(path.join(dir, "nodes.json"), text);
    expect(new KnownNodes(dir).urls).toEqual([]);
  }
  const nodes = new KnownNodes("/dev/null/nowhere");
  nodes.add("a", url(1));
  expect(nodes.urls).toEqual([url(1)]);
  expect(readFileSync(path.join(dir, "nodes.json"), "utf8")).toContain("no url");
});

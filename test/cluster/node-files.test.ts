import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { NodeFiles } from "../../src/cluster/node-files.ts";
import { PrimaryFiles } from "../../src/cluster/primary-files.ts";
import { position } from "../../src/ltx/position.ts";

let dir: string;
let problems: Error[];
const opened: NodeFiles[] = [];
beforeEach(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), "sluice-files-"));
  problems = [];
});
afterEach(async () => {
  await Promise.all(opened.splice(0).map((files) => files.close()));
  rmSync(dir, { recursive: true, force: true });
});

const at = (name: string): string => path.join(dir, name);

function files(name: string, primaries: PrimaryFiles, everyMs?: number): NodeFiles {
  if (!existsSync(at(name))) writeFileSync(at(name), "", { mode: 0o640 });
  const made = new NodeFiles(at(name), {
    primaries,
    onProblem: (error) => problems.push(error),
    ...(everyMs !== undefined && { everyMs }),
  });
  opened.push(made);
  return made;
}

const text = (name: string): string => readFileSync(at(name), "latin1");

test("the position is written as LiteFS writes it, with the database's mode, and stays after a stop", async () => {
  const made = files("a.db", new PrimaryFiles());
  made.position(position(3, 255), 0xabcn);
  await vi.waitFor(() => expect(text("a.db-pos")).toBe("00000003000000ff/0000000000000abc\n"));
  expect(statSync(at("a.db-pos")).mode & 0o777).toBe(0o640);
  made.position(position(3, 256), 2n ** 64n - 1n);
  await made.close();
  expect(text("a.db-pos")).toBe("0000000300000100/ffffffffffffffff\n");
  expect(readdirSync(dir).toSorted()).toEqual(["a.db", "a.db-pos"]);
  expect(problems).toEqual([]);
});

test("many commits are few writes into one file, the last of them counts, and an open descriptor sees it", async () => {
  const made = files("a.db", new PrimaryFiles(), 20);
  made.position(position(1, 1), 1n);
  await vi.waitFor(() => expect(existsSync(at("a.db-pos"))).toBe(true));
  const fd = openSync(at("a.db-pos"), "r");
  const seen = new Set<string>();
  const bytes = Buffer.alloc(100);
  const look = (): string => bytes.toString("latin1", 0, readSync(fd, bytes, 0, bytes.length, 0));
  const end = performance.now() + 200;
  for (let i = 2; performance.now() < end; i++) {
    made.position(position(1, i), BigInt(i));
    await new Promise(setImmediate);
    seen.add(look());
  }
  made.position(position(2, 0), 7n);
  await vi.waitFor(() => expect(look()).toBe("0000000200000000/0000000000000007\n"));
  expect(seen.size).toBeGreaterThan(1);
  // 20 ms lie between two writes; a loaded machine makes it more.
  expect(seen.size).toBeLessThanOrEqual(15);
});

test("a reader in another process never sees half of it", async () => {
  const made = files("a.db", new PrimaryFiles(), 0);
  const digits = (i: number): bigint => BigInt(`0x${"123456789abcdef"[i % 15]!.repeat(16)}`);
  made.position(digits(0), digits(0));
  await vi.waitFor(() => expect(existsSync(at("a.db-pos"))).toBe(true));
  const reader = spawn("python3", ["-c", READER, at("a.db-pos")], { stdio: ["ignore", "pipe", "inherit"] });
  let output = "";
  reader.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
  const ended = once(reader, "close");
  for (let i = 0; reader.exitCode === null; i++) {
    made.position(digits(i), digits(i));
    await new Promise(setImmediate);
  }
  await ended;
  const [values, torn] = output.trim().split(" ").map(Number);
  expect(values).toBeGreaterThan(5);
  expect(torn).toBe(0);
});

const READER = `
import sys, time
end = time.time() + 1
seen, torn = set(), 0
while time.time() < end:
    with open(sys.argv[1], "rb") as f: text = f.read()
    if len(text) != 34 or len(set(text)) != 3: torn += 1
    seen.add(text)
print(len(seen), torn)
`;

test("a file that somebody removes comes back", async () => {
  const made = files("a.db", new PrimaryFiles(), 1);
  made.position(position(1, 1), 1n);
  await vi.waitFor(() => expect(existsSync(at("a.db-pos"))).toBe(true));
  rmSync(at("a.db-pos"));
  let seq = 2;
  await vi.waitFor(
    () => {
      made.position(position(1, seq++), 1n);
      expect(existsSync(at("a.db-pos"))).toBe(true);
    },
    { timeout: 10_000 },
  );
  expect(problems).toEqual([]);
});

test("what the disk refuses is told once, stops nothing, and is made good", async () => {
  const made = files("a.db", new PrimaryFiles(), 1);
  // In the place of the file: no rename can replace it, whoever runs this.
  mkdirSync(at("a.db-pos/full"), { recursive: true });
  for (let i = 1; i < 20; i++) {
    made.position(position(1, i), 1n);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  expect(problems).toHaveLength(1);
  expect(problems[0]).toMatchObject({
    code: expect.stringMatching(/^SLU-20/),
    message: expect.stringContaining("a.db-pos"),
  });
  rmSync(at("a.db-pos"), { recursive: true });
  await vi.waitFor(() => expect(text("a.db-pos")).toBe("0000000100000013/0000000000000001\n"), { timeout: 10_000 });
  expect(problems).toHaveLength(1);

  mkdirSync(at(".primary/full"), { recursive: true });
  for (let i = 0; i < 3; i++) made.primary("b");
  expect(problems).toHaveLength(2);
  rmSync(at(".primary"), { recursive: true });
  made.primary("b");
  expect(text(".primary")).toBe("b\n");
});

test(".primary is there while a database of the directory follows, and names the primary", async () => {
  const primaries = new PrimaryFiles();
  mkdirSync(at("other"));
  writeFileSync(at(".primary"), "left by a killed process\n");
  const [a, b, c] = [files("a.db", primaries), files("b.db", primaries), files("other/c.db", primaries)];
  chmodSync(at("a.db"), 0o666);
  a.primary(undefined);
  expect(existsSync(at(".primary"))).toBe(false);
  a.primary("node-1");
  b.primary("node-1");
  c.primary("node-1");
  expect(text(".primary")).toBe("node-1\n");
  expect(text("other/.primary")).toBe("node-1\n");
  expect(statSync(at(".primary")).mode & 0o777).toBe(0o666);
  a.primary("node-2");
  expect(text(".primary")).toBe("node-2\n");
  a.primary(undefined);
  a.primary(undefined);
  expect(existsSync(at(".primary"))).toBe(true);
  await b.close();
  expect(existsSync(at(".primary"))).toBe(false);
  expect(existsSync(at("other/.primary"))).toBe(true);
  a.primary("node-2");
  expect(text(".primary")).toBe("node-2\n");
});

import { execFile } from "node:child_process";
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { environment, launcher } from "./sluice.ts";

const execFileAsync = promisify(execFile);
const root = path.resolve(import.meta.dirname, "../..");
const { version } = JSON.parse(readFileSync(path.join(root, "package.json"), "utf8")) as { version: string };
let dir: string;

beforeAll(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), "sluice-launcher-"));
});
afterAll(() => rmSync(dir, { recursive: true }));

test("works through symbolic links, absolute and relative", async () => {
  mkdirSync(path.join(dir, "bin"));
  symlinkSync(launcher, path.join(dir, "absolute"));
  symlinkSync("../absolute", path.join(dir, "bin/sluice"));
  const { stdout } = await execFileAsync(path.join(dir, "bin/sluice"), ["version"], { env: environment(), cwd: "/" });
  expect(stdout).toBe(`${version}\n`);
});

test("says which Node.js it needs", async () => {
  const bare = path.join(dir, "bare");
  mkdirSync(path.join(bare, "bin"), { recursive: true });
  cpSync(launcher, path.join(bare, "bin/sluice"));
  writeFileSync(path.join(bare, "node"), "#!/bin/sh\nexit 1\n");
  chmodSync(path.join(bare, "node"), 0o755);
  const env = { ...environment(), PATH: `${bare}:/usr/bin:/bin` };
  const failure = execFileAsync(path.join(bare, "bin/sluice"), ["version"], { env });
  await expect(failure).rejects.toMatchObject({ code: 1, stderr: expect.stringContaining("needs Node.js 22.18") });
});

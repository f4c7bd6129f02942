import { execFile } from "node:child_process";
import path from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { lacks, peers } from "../peers/peers.ts";

const root = path.resolve(import.meta.dirname, "../../integrations/django");
const run = promisify(execFile);

/** The package's own tests, in Python: `python -m tests` prints what it ran with, and fails with what broke. */
async function pythonTests(python: string): Promise<string> {
  try {
    const { stdout } = await run(python, ["-W", "error::DeprecationWarning", "-m", "tests"], {
      cwd: root,
      env: { PATH: process.env["PATH"], PYTHONPATH: "src", PYTHONDONTWRITEBYTECODE: "1" },
    });
    return stdout;
  } catch (error) {
    const { stdout, stderr } = error as { stdout: string; stderr: string };
    throw new Error(`${stdout}${stderr}`, { cause: error });
  }
}

describe("django-sluice", () => {
  for (const [peer, version] of [
    ["djangoOld", "4.2"],
    ["django", "5.2"],
    ["djangoNew", "the newest"],
  ] as const)
    test.skipIf(lacks(peer)).concurrent(`with Django ${version}`, async () => {
      expect(await pythonTests(peers[peer])).toMatch(/Django [\d.]+, Python [\d.]+: \d+ tests/);
    });
});

import { execFile, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";

const run = promisify(execFile);
const root = path.resolve(import.meta.dirname, "../..");
const mayUnshare = spawnSync("unshare", ["--mount", "--pid", "--fork", "true"]).status === 0;

// It takes 130 MB and half a minute of a processor: where everything is tried, not with every run.
test.skipIf(process.env["CI"] !== "true" || process.arch !== "x64" || !mayUnshare)(
  "the self-contained executable backs up and restores where there is no Node.js",
  { timeout: 300_000 },
  async () => {
    const dir = mkdtempSync(path.join(os.tmpdir(), "sluice-executable-"));
    try {
      const file = path.join(dir, "sluice");
      await run(process.execPath, ["packaging/executable.ts", file], { cwd: root });
      const { stdout } = await run("packaging/try-executable.sh", [file], { cwd: root });
      expect(stdout).toMatch(/the application runs as \d+/);
      expect(stdout).toContain("restored: 1000 rows");
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  },
);

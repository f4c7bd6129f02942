import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";

const sluice = fileURLToPath(new URL("../../bin/sluice", import.meta.url));
const run = promisify(execFile);

interface Report {
  readonly ok: boolean;
  readonly rows: readonly { readonly what: string; readonly result: string; readonly ok?: boolean }[];
}

test("the demo tells its whole story, and every check holds", { timeout: 120_000 }, async () => {
  const { stdout } = await run(sluice, ["demo", "--json"], { timeout: 110_000 });
  const { ok, rows } = JSON.parse(stdout) as Report;
  expect(rows.filter((row) => row.ok === false)).toEqual([]);
  expect(ok).toBe(true);
  const checked = rows.filter((row) => row.ok !== undefined).map(({ what }) => what);
  for (const what of ["own writes not seen", "failed of all requests", "stale reads", "entries on node-3"]) {
    expect(checked).toContain(what);
  }
  expect(checked.join()).toMatch(/accepts writes.*all disks lost/);
});

test("asked to stop, it ends all its processes and says so", { timeout: 60_000 }, async () => {
  const child = execFile(sluice, ["demo", "--keep"]);
  let output = "";
  child.stdout!.on("data", (data: string) => (output += data));
  await expect.poll(() => output, { timeout: 30_000, interval: 20 }).toContain("right after its acknowledgement");
  child.kill("SIGTERM");
  const code = await new Promise<number | null>((resolve) => child.on("exit", resolve));
  expect(code).toBe(1);
  expect(output).toContain("an empty disk → all nodes answer");
  const { stdout } = await run("ps", ["-eo", "ppid,args"]);
  const left = stdout.split("\n").filter((line) => line.trim().startsWith(`${child.pid} `));
  expect(left).toEqual([]);
});

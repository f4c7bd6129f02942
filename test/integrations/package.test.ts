import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { installInto, tsc } from "./installed.ts";

const run = promisify(execFile);
let project: string;

beforeAll(async () => {
  project = mkdtempSync(path.join(os.tmpdir(), "sluice-package-"));
  await installInto(project, "@types");
});
afterAll(() => rmSync(project, { recursive: true }));

test("an application imports sluice/connect from the built package", async () => {
  const script =
    'import { isReplica, sluice } from "sluice/connect"; console.log(isReplica("/nowhere/a.db"), typeof sluice);';
  writeFileSync(path.join(project, "app.mjs"), script);
  const { stdout } = await run(process.execPath, ["app.mjs"], { cwd: project });
  expect(stdout).toBe("false function\n");
});

test("it is typed", async () => {
  const script = [
    'import { createServer } from "node:http";',
    'import { withSluice, positionOf, type ConnectOptions } from "sluice/connect";',
    'const options: ConnectOptions = { databases: "/data/app.db", proxy: "fly" };',
    "createServer(withSluice(options, (_request, response) => response.end()));",
    'export const position: bigint | undefined = positionOf("/data/app.db")?.position;',
    "// @ts-expect-error: no such proxy",
    'withSluice({ databases: [], proxy: "nginx" }, () => {});',
  ];
  writeFileSync(path.join(project, "app.ts"), script.join("\n"));
  writeFileSync(path.join(project, "package.json"), '{ "type": "module" }');
  const flags = ["--strict", "--noEmit", "--module", "nodenext", "--target", "es2024", "--types", "node"];
  await expect(run(tsc, [...flags, "app.ts"], { cwd: project })).resolves.toMatchObject({ stdout: "" });
});

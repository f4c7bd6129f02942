import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import Sqlite from "better-sqlite3";
import { afterAll, beforeAll, expect, test } from "vitest";
import { environment } from "../cli/sluice.ts";
import { install, pack, type Packed, root } from "./package.ts";

const execFileAsync = promisify(execFile);
let dir: string;
let packed: Packed;
/** A project that has the package as its only dependency. */
let project: string;

beforeAll(async () => {
  dir = mkdtempSync(path.join(os.tmpdir(), "sluice-package-"));
  packed = await pack(dir);
  project = path.join(dir, "project");
  await install(packed.tarball, project);
});
afterAll(() => rmSync(dir, { recursive: true }));

async function sluice(...args: readonly string[]): Promise<string> {
  const env = { ...environment(), PATH: `${path.dirname(process.execPath)}:${process.env["PATH"]}` };
  const { stdout } = await execFileAsync(path.join(project, "node_modules/.bin/sluice"), args, { env, cwd: project });
  return stdout;
}

/** Paths below `top`, from there, without their endings. */
function modules(top: string, ending: string): string[] {
  return readdirSync(path.join(root, top), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(ending))
    .map((name) => name.slice(0, -ending.length));
}

test("contains each source file built, types of what can be imported, the documentation, and nothing else", () => {
  const expected = [
    "LICENSE",
    "README.md",
    "package.json",
    "bin/sluice",
    "docs/sluice.schema.json",
    ...modules("src", ".ts").map((name) => `dist/${name}.js`),
    ...modules("src/connect", ".ts").map((name) => `dist/connect/${name}.d.ts`),
    ...readdirSync(path.join(root, "docs"))
      .filter((name) => name.endsWith(".md"))
      .map((name) => `docs/${name}`),
  ];
  expect(packed.files.toSorted()).toEqual(expected.toSorted());
});

test("what is installed runs without any package's install script, and brings no compiler's work", async () => {
  const { version } = JSON.parse(readFileSync(path.join(root, "package.json"), "utf8")) as { version: string };
  expect(JSON.parse(await sluice("version", "--json"))).toEqual({ version, node: process.version });
  for (const name of ["koffi", "better-sqlite3", "lz4-napi"])
    expect(existsSync(path.join(project, "node_modules", name, "build")), name).toBe(false);
});

test("backs a database up beside an application, and restores it", async () => {
  const source = path.join(dir, "source.db");
  const store = `file://${dir}/store`;
  const sql = "import Sqlite from 'better-sqlite3'; new Sqlite(process.argv[1]).exec('insert into t values(7)')";
  new Sqlite(source).exec("create table t(x)").close();
  const application = [process.execPath, "--input-type=module", "-e", sql, source];
  await sluice("run", "--db", source, "--store", store, "--", ...application);
  const restored = path.join(dir, "restored.db");
  await sluice("restore", "-o", restored, store);
  const db = new Sqlite(restored, { readonly: true });
  expect(db.prepare("select x from t").pluck().all()).toEqual([7]);
  db.close();
});

test("sluice/connect is imported with its types, and nothing else of the package is", async () => {
  const application = `import { primaryOf, sluice } from "sluice/connect";
    const primary: string | undefined = primaryOf("a.db");
    // @ts-expect-error Its types are strict.
    sluice({ databases: 1 });
    // @ts-expect-error Not one of the exports.
    import "sluice/dist/connect/index.js";
    console.log(primary, typeof sluice({ databases: "a.db", localMethods: ["GET"] }));`;
  writeFileSync(path.join(project, "application.mts"), application);
  symlinkSync(path.join(root, "node_modules/@types"), path.join(project, "node_modules/@types"));
  const strict = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2024", "--types", "node"];
  await execFileAsync(path.join(root, "node_modules/.bin/tsc"), [...strict, "application.mts"], { cwd: project });
  const script = `console.log(typeof (await import("sluice/connect")).sluice);
    import("sluice/dist/connect/index.js").catch(({ code }) => console.log(code));`;
  const { stdout } = await execFileAsync(process.execPath, ["--input-type=module", "-e", script], { cwd: project });
  expect(stdout).toBe("function\nERR_PACKAGE_PATH_NOT_EXPORTED\n");
});

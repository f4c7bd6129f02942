import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { entriesFor, execEntries, findCommand, splitCommand } from "../../src/supervise/exec-list.ts";

describe("splitCommand", () => {
  test.each([
    ["python manage.py migrate", ["python", "manage.py", "migrate"]],
    ["  gunicorn   mysite.wsgi ", ["gunicorn", "mysite.wsgi"]],
    [`sh -c 'a && b > "c d"'`, ["sh", "-c", `a && b > "c d"`]],
    [String.raw`echo "a \"b\"" c\ d ''`, ["echo", `a "b"`, "c d", ""]],
    ["echo $HOME ${PATH}", ["echo", "$HOME", "$PATH"]],
    ["node --x=a=b", ["node", "--x=a=b"]],
  ])("%s", (line, words) => {
    expect(splitCommand(line)).toEqual(words);
  });

  test.each(["a && b", "a | b", "a > b", "a; b", "a &", "ls *.py", "a # b", "", "   ", "(a)"])(
    "%j is refused",
    (line) => {
      expect(() => splitCommand(line)).toThrow(expect.objectContaining({ code: "SLU-6003" }));
    },
  );
});

test("entries have defaults, and run in their role", () => {
  const entries = execEntries([
    { cmd: "migrate", on: "primary", wait: true },
    { cmd: "warm up", on: "replica", wait: true },
    "serve",
  ]);
  expect(entriesFor("primary", entries)).toEqual([
    { argv: ["migrate"], on: "primary", wait: true },
    { argv: ["serve"], on: "any", wait: false },
  ]);
  expect(entriesFor("replica", entries).map(({ argv }) => argv[0])).toEqual(["warm", "serve"]);
});

describe("findCommand", () => {
  let dir: string;
  beforeAll(() => {
    dir = mkdtempSync(path.join(os.tmpdir(), "sluice-find-"));
    for (const folder of ["a", "b"]) mkdirSync(path.join(dir, folder));
    writeFileSync(path.join(dir, "a/tool"), "", { mode: 0o644 });
    writeFileSync(path.join(dir, "b/tool"), "", { mode: 0o755 });
    mkdirSync(path.join(dir, "a/folder"));
  });
  afterAll(() => rmSync(dir, { recursive: true }));

  test("skips what can't be executed, as execvp does", () => {
    expect(findCommand("tool", { PATH: `${dir}/a:${dir}/b` })).toBe(`${dir}/b/tool`);
    expect(findCommand(`${dir}/b/tool`, { PATH: "" })).toBe(`${dir}/b/tool`);
  });

  test("missing, and not executable", () => {
    const code = (code: string) => expect.objectContaining({ code });
    expect(() => findCommand("tool", { PATH: `${dir}/c` })).toThrow(code("SLU-6001"));
    expect(() => findCommand(`${dir}/c/tool`, {})).toThrow(code("SLU-6001"));
    expect(() => findCommand("tool", { PATH: `${dir}/a` })).toThrow(code("SLU-6002"));
    expect(() => findCommand("folder", { PATH: `${dir}/a` })).toThrow(code("SLU-6002"));
  });
});

import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { connectionsWithin } from "../../src/proxy/open-files.ts";

const FILE = fileURLToPath(new URL("../../src/proxy/open-files.ts", import.meta.url));

test("half of what may be open is left to the databases", () => {
  expect(connectionsWithin(10_000, 1_048_576)).toBe(10_000);
  expect(connectionsWithin(10_000, 1_024)).toBe(256);
  expect(connectionsWithin(10_000, 1)).toBe(1);
  expect(connectionsWithin(50, Infinity)).toBe(50);
});

test("the limit is the process's own", () => {
  const script = `import(${JSON.stringify(FILE)}).then((m) => console.log(m.openFilesMax()))`;
  const node = `ulimit -n 300; exec ${JSON.stringify(process.execPath)} --no-warnings -e '${script}'`;
  expect(execFileSync("sh", ["-c", node], { encoding: "utf8" }).trim()).toBe("300");
});

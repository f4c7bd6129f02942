import { expect, test } from "vitest";
import { SluiceError } from "../../src/errors/error.ts";
import { logFailure } from "../../src/observe/failure.ts";
import type { Logger } from "../../src/observe/log.ts";

test("a failure that two hear of is logged once, another one of the same kind again", () => {
  const lines: [object, string][] = [];
  const log = { error: (fields: object, message: string) => lines.push([fields, message]) } as unknown as Logger;
  const error = new SluiceError("SLU-2017", "locked");
  logFailure(log, error);
  logFailure(log, error);
  expect(lines).toEqual([[{ code: "SLU-2017", hint: error.hint }, "locked"]]);
  logFailure(log, new SluiceError("SLU-2017", "locked"));
  const bug = new TypeError("no");
  logFailure(log, bug);
  logFailure(log, "only text");
  expect(lines.slice(2)).toEqual([
    [{ err: bug }, "no"],
    [{ err: "only text" }, "only text"],
  ]);
});

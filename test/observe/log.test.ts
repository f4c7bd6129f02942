import { afterEach, expect, test, vi } from "vitest";
import { createLog, readable, type LogOptions } from "../../src/observe/log.ts";

afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
});

/** What is written on standard error. */
function logged(options: LogOptions, write: (log: ReturnType<typeof createLog>) => void): string[] {
  const lines: string[] = [];
  vi.spyOn(process.stderr, "write").mockImplementation((line) => {
    lines.push(String(line));
    return true;
  });
  write(createLog(options));
  vi.restoreAllMocks();
  return lines;
}

test("is one JSON document a line, where no terminal is", () => {
  const [line] = logged({ type: "json" }, (log) => log.info({ db: "/a.db" }, "protected"));
  expect(JSON.parse(line!)).toEqual({ level: "info", time: expect.any(String), db: "/a.db", message: "protected" });
  expect(line).toMatch(/^\{.*\}\n$/);
});

test("is for people on a terminal", () => {
  const [line] = logged({ type: "text" }, (log) => log.child({ db: "/a b.db" }).warn({ n: 1, o: { p: 2 } }, "careful"));
  expect(line).toMatch(/^\d\d:\d\d:\d\d\.\d{3} WARN {2}careful db="\/a b\.db" n=1 o=\{"p":2\}\n$/);
});

test("shows the stack of an error", () => {
  const [line] = logged({ type: "text" }, (log) => log.error({ err: new Error("broken") }, "it broke"));
  expect(line).toMatch(/ERROR it broke\nError: broken\n {4}at /);
  expect(readable('{"level":"info","time":"2026-01-01T00:00:00.000Z","message":"a"}')).toBe("00:00:00.000 INFO  a\n");
});

test.each([
  [undefined, undefined, ["info"]],
  ["debug", undefined, ["debug", "info"]],
  [undefined, "DEBUG", ["debug", "info"]],
  ["warn", "debug", []],
  [undefined, "nonsense", ["info"]],
])("the level is the configuration's (%s), else LOG_LEVEL (%s), else info", (level, variable, expected) => {
  vi.stubEnv("LOG_LEVEL", variable);
  const lines = logged({ level, type: "json" }, (log) => {
    log.trace("trace");
    log.debug("debug");
    log.info("info");
  });
  expect(lines.map((line) => (JSON.parse(line) as { message: string }).message)).toEqual(expected);
});

test("a planted secret isn't written", () => {
  const lines = logged({ type: "json", level: "trace" }, (log) => {
    const settings = {
      secretAccessKey: "hunter2",
      accessKeyId: "hunter2",
      sessionToken: "hunter2",
      sseCustomerKey: "hunter2",
    };
    log.info({ settings, secret: "hunter2", password: "hunter2" }, "x");
    log.child({ secret: "hunter2" }).info({ headers: { authorization: "hunter2" } }, "y");
  });
  expect(lines).toHaveLength(2);
  expect(lines.join("")).not.toContain("hunter2");
});

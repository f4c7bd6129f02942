import {
  appendFileSync,
  closeSync,
  copyFileSync,
  openSync,
  readFileSync,
  renameSync,
  truncateSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { WalIndexHeader, WalIndexImage } from "../../src/sqlite/wal-index.ts";
import { runPython, runPythonBeside, scratch, until } from "./apps.ts";
import { Replay } from "./replay.ts";

let dir: ReturnType<typeof scratch>;
let path: string;
let replay: Replay;
beforeEach(async () => {
  dir = scratch("replaced");
  path = dir.path("app.db");
  runPython(
    path,
    `db.execute("pragma journal_mode=wal"); db.execute("create table t(a)"); db.execute("insert into t values(1)")`,
  );
  copyFileSync(path, dir.path("copy.db"));
  replay = await Replay.open(path);
  runPython(path, `db.execute("insert into t values(2)")`);
  await until(() => replay.commits === 1, "the first commit");
});
afterEach(() => {
  replay.wal.release();
  dir.remove();
});

test.each([
  ["the database is deleted", () => unlinkSync(path), /app\.db is gone/],
  ["the WAL is deleted", () => unlinkSync(`${path}-wal`), /-wal is gone/],
  ["the wal-index is deleted", () => unlinkSync(`${path}-shm`), /-shm is gone/],
  ["the database is renamed", () => renameSync(path, dir.path("elsewhere.db")), /is gone/],
  ["another file is moved to its place", () => renameSync(dir.path("copy.db"), path), /is another file/],
  [
    "the wal-index is replaced",
    () => {
      copyFileSync(`${path}-shm`, dir.path("shm"));
      renameSync(dir.path("shm"), `${path}-shm`);
    },
    /-shm is another file/,
  ],
  ["the database is cut to nothing", () => truncateSync(path, 0), /was truncated/],
  ["the wal-index is cut", () => truncateSync(`${path}-shm`, 0), /-shm was truncated/],
])(
  "%s: capture ends for good, is told once, and nothing is captured from the old files",
  async (_name, act, message) => {
    act();
    await until(() => replay.losses.length > 0, "the loss to be noticed", 2_000);
    await new Promise((resolve) => setTimeout(resolve, 600));
    expect(replay.losses).toEqual([
      expect.objectContaining({ code: "SLU-2006", message: expect.stringMatching(message) }),
    ]);
    expect(() => replay.wal.captureNow()).toThrow(expect.objectContaining({ code: "SLU-2006" }));
    expect(replay.commits).toBe(1);
  },
);

test("a WAL that somebody cuts is found before anything of it reaches the database file", async () => {
  await runPythonBeside(path, `for i in range(20): db.execute("insert into t values(3)")`);
  await until(() => replay.commits === 21, "the commits");
  const before = readFileSync(path);
  truncateSync(`${path}-wal`, 32);
  replay.wal.sealed(replay.wal.capture.frame);
  await expect(replay.wal.finish(1_000)).rejects.toMatchObject({ code: "SLU-2007" });
  expect(readFileSync(path).equals(before)).toBe(true);
});

test("a WAL that somebody writes over is told as lost frames", async () => {
  const index = readFileSync(`${path}-shm`);
  // The application's index says that there is one frame more.
  const image = new WalIndexImage();
  image.bytes.set(index.subarray(0, 136));
  const header = new WalIndexHeader();
  image.parse(0, header);
  header.mxFrame += 1;
  image.put(header);
  appendFileSync(`${path}-wal`, Buffer.alloc(4120, 7));
  const fd = openSync(`${path}-shm`, "r+");
  writeSync(fd, image.bytes, 0, 96, 0);
  closeSync(fd);
  await until(() => replay.losses.length > 0, "the loss to be noticed", 2_000);
  expect(replay.losses).toEqual([expect.objectContaining({ code: "SLU-2007" })]);
});

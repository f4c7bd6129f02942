import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { EarlySync } from "../../src/log/early-sync.ts";

const MEBIBYTE = 1024 * 1024;

test("the disk begins while the file is being written, with one sync at a time", async () => {
  let running = 0;
  let syncs = 0;
  const early = new EarlySync(-1, async () => {
    running += 1;
    syncs += 1;
    expect(running).toBe(1);
    await sleep(5);
    running -= 1;
  });
  for (let i = 0; i < 63; i++) early.wrote(MEBIBYTE);
  expect(syncs).toBe(0);
  for (let i = 0; i < 500; i++) early.wrote(MEBIBYTE);
  expect(syncs).toBe(1);
  await early.idle();
  expect(running).toBe(0);
  early.wrote(MEBIBYTE);
  expect(syncs).toBe(2);
  await early.settle();
  expect(running).toBe(0);
});

test("a write that failed behind the program's back is not lost", async () => {
  const failed = Object.assign(new Error("i/o error"), { code: "EIO" });
  let fails = true;
  const early = new EarlySync(-1, () => {
    if (!fails) return Promise.resolve();
    fails = false;
    return Promise.reject(failed);
  });
  early.wrote(64 * MEBIBYTE);
  await early.idle();
  early.wrote(64 * MEBIBYTE);
  await early.idle();
  await expect(early.settle()).rejects.toBe(failed);
});

import { existsSync, rmSync } from "node:fs";
import { expect, test } from "vitest";
import { Place } from "./sluice.ts";

test("a forgotten database is not restored by itself, not written to, and still there for `restore`", async () => {
  await using place = new Place();
  const db = place.create("app.db", 3);
  const running = await place.start('"message":"protected"', "replicate", "app.db", place.store);
  const refused = await place.sluice("forget", "app.db", "--json");
  expect(refused.status).toBe(1);
  expect(refused.stdout + refused.stderr).toContain("SLU-1017");
  await running.end("SIGTERM");

  expect(await place.json("forget", place.store)).toEqual({ ended: true, url: place.store });
  expect(await place.json("forget", place.store)).toEqual({ ended: true, url: place.store });
  const again = await place.sluice("run", "--db", "app.db", "--store", place.store, "--", "true");
  expect(again.status).toBe(1);
  expect(again.stderr).toContain("SLU-4106");

  for (const name of ["app.db", ".app.db-sluice"]) rmSync(place.path(name), { recursive: true });
  const missing = await place.sluice("run", "--db", "app.db", "--store", place.store, "--", "touch", "started");
  expect(missing.status).toBe(1);
  expect(missing.stderr).toContain("SLU-4106");
  expect(existsSync(place.path("started"))).toBe(false);
  expect(existsSync(db)).toBe(false);

  await place.json("restore", "-o", "app.db", place.store);
  expect(place.rows("app.db")).toBe(3);
});

test("where there is no log there is nothing to end", async () => {
  await using place = new Place();
  const { status, stdout, stderr } = await place.sluice("forget", place.store);
  expect(status).toBe(1);
  expect(stdout + stderr).toContain("SLU-4501");
});

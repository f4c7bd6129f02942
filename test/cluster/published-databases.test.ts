import { expect, test } from "vitest";
import type { ProtectedDatabase } from "../../src/cluster/protected-database.ts";
import { LeadingDatabases } from "../../src/cluster/published-databases.ts";
import { systemClock } from "../../src/log/clock.ts";

test("who joins while a primary steps down, without its writer already, still meets the same log", () => {
  const database = { name: "app.db", feed: {}, takenOverAt: 0n, writer: { logId: "1234", epoch: 7 } };
  const published = new LeadingDatabases(() => [database as unknown as ProtectedDatabase], systemClock);
  published.changed();
  Object.assign(database, { writer: undefined, feed: undefined });
  // Another log's id would end the replica for good.
  expect(published.get("app.db")).toMatchObject({ logId: "1234", epoch: 7 });
  published.changed();
  expect(published.get("app.db")).toBeUndefined();
});

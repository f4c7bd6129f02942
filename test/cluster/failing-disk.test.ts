import { afterEach, beforeEach, expect, test } from "vitest";
import { SluiceError } from "../../src/errors/error.ts";
import { TestCluster } from "./nodes.ts";

let cluster: TestCluster;
beforeEach(() => {
  cluster = new TestCluster();
});
afterEach(() => cluster.remove());

const patient = { timeout: 20_000, interval: 20 };

test("while a replica waits for its disk nobody can write there, and then it goes on", async () => {
  await (await cluster.connect("a")).start();
  await expect.poll(() => cluster.primary, patient).toBe("a");
  await cluster.sqlBeside("a", 10, "create table t(x)", "insert into t values(1)");
  const b = await cluster.connect("b", { candidate: false });
  await b.start();
  const database = b.databases[0]!;
  await expect.poll(() => database.status.state, patient).toBe("following");
  const { replica } = database;
  replica!.change = () => Promise.reject(new SluiceError("SLU-2008", "no space left"));
  await cluster.sqlBeside("a", 10, "insert into t values(2)");
  await expect.poll(() => database.status.error?.code, patient).toBe("SLU-2008");
  for (let i = 0; i < 3; i++) {
    await expect(cluster.sqlBeside("b", 0.1, "insert into t values(3)")).rejects.toThrow(/locked/);
  }
  await expect.poll(() => cluster.sqlBeside("b", 1, "select x from t"), patient).toBe("[(1,), (2,)]");
  // Its files were open all the time: nothing was put aside, nothing compared.
  expect(database.status.quarantined).toMatchObject({ entries: 0 });
  await expect(cluster.sqlBeside("b", 0.1, "insert into t values(3)")).rejects.toThrow(/locked/);
});

import { expect, test } from "vitest";
import { Stores } from "../../src/cluster/stores.ts";
import { createLog } from "../../src/observe/log.ts";
import { Metrics } from "../../src/observe/metrics.ts";

test("one bucket with other credentials or options is another store, the same twice is one", async () => {
  const stores = new Stores({ log: createLog({ level: "fatal" }), metrics: new Metrics() });
  const url = "s3://bucket/logs?endpoint=http://127.0.0.1:9&region=r";
  const settings = { accessKeyId: "a", secretAccessKey: "b" };
  const first = await stores.get({ url, settings });
  expect(await stores.get({ url, settings: { secretAccessKey: "b", accessKeyId: "a" } })).toBe(first);
  expect(await stores.get({ url, settings: { ...settings, accessKeyId: "c" } })).not.toBe(first);
  expect(await stores.get({ url, settings: { ...settings, storageClass: "GLACIER_IR" } })).not.toBe(first);
  await stores.close();
});

import { expect, test } from "vitest";
import { Metrics } from "../../src/observe/metrics.ts";

test("everything has Sluice's prefix and a help text", async () => {
  for (const { name, help } of await new Metrics().registry.getMetricsAsJSON()) {
    expect(name).toMatch(/^sluice_[a-z_]+$/);
    expect(help.length).toBeGreaterThan(10);
  }
});

test("gauges are brought up to date when they are read", async () => {
  const metrics = new Metrics();
  let lag = 1;
  metrics.onCollect = () => metrics.storeLag.set({ db: "/a" }, lag++);
  expect(await metrics.text()).toContain('sluice_store_lag_seconds{db="/a"} 1\n');
  expect(await metrics.text()).toContain('sluice_store_lag_seconds{db="/a"} 2\n');
  expect(await metrics.text()).toMatch(/^sluice_resident_bytes [1-9]\d{6,}$/m);
});

test("a database that is gone leaves no series behind, others stay", async () => {
  const metrics = new Metrics();
  for (const db of ["/a", "/b"]) {
    metrics.commits.inc({ db });
    metrics.walBytes.set({ db }, 1);
    metrics.appendSeconds.observe({ db }, 0.1);
    metrics.errors.inc({ db, code: "SLU-2001" });
    metrics.errors.inc({ db, code: "none" });
  }
  metrics.forget("/a");
  const text = await metrics.text();
  expect(text).not.toContain('db="/a"');
  expect(text).toContain('sluice_errors_total{db="/b",code="SLU-2001"} 1');
  expect(text).toContain('sluice_append_seconds_count{db="/b"} 1');
});

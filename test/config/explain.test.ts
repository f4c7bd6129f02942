import { expect, test } from "vitest";
import { explain } from "../../src/config/explain.ts";
import { parseConfig } from "../../src/config/load.ts";
import { resolveConfig } from "../../src/config/resolve.ts";
import type { Config } from "../../src/config/config.ts";

function resolved(text: string): Config {
  const { value, problems } = parseConfig(text, {});
  expect(problems).toEqual([]);
  const config = resolveConfig(value!, "/etc/sluice.yml", {});
  expect(config).toHaveProperty("dbs");
  return config as Config;
}

test("the explanation is a configuration that means the same", () => {
  const config = resolved(`
dbs:
  - { path: /data/app.db, store: s3://bucket/app, sync-interval: 90s }
  - { dir: /t, recursive: true, pattern: "*.x", replica: { type: s3, bucket: b, path: p, concurrency: 3, part-size: 5MiB } }
snapshot: { interval: 36h, retention: 1500ms }
node: { name: n, listen: "[::1]:1" }
addr: ":9090"
exec: [{ cmd: a b, wait: true, on: primary }]
logging: { level: warn }
shutdown-sync-timeout: 1m
`);
  const { text } = explain(config);
  expect(text).toMatch(/^# \/etc\/sluice\.yml\n/);
  expect(resolved(text)).toEqual(config);
});

test("a secret that was planted anywhere isn't shown", () => {
  const config = resolved(`
dbs:
  - { path: /a, store: "s3://me:hunter2@bucket/a?secret-access-key=hunter2&region=eu&session_token=hunter2" }
  - { path: /c, store: "s3://me:abc/hunter2@bucket/c" }
  - { path: /d, store: "s3://me@example.com:hunter2@bucket/d" }
  - path: /b
    store:
      url: s3://bucket/b
      access-key-id: hunter2
      secret-access-key: hunter2
      session-token: hunter2
      sse-customer-key: hunter2
      endpoint: https://me:hunter2@host/?api_key=hunter2
cluster: { secret: hunter2-hunter2 }
exec: 
  - cmd: serve --api-token hunter2 --password="hunter2 hunter2" DB_SECRET=hunter2 http://u:hunter2@host/?key=hunter2
`);
  const { text, value } = explain(config);
  expect(text + JSON.stringify(value)).not.toContain("hunter2");
  expect(text).toContain("s3://***@bucket/a?secret-access-key=***&region=eu&session_token=***");
  expect(text).toContain("https://***@host/?api_key=***");
});

import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { convert } from "../../src/config/convert.ts";
import { parseConfig } from "../../src/config/load.ts";

/** The converted file, which must be valid, and its comments. */
function converted(
  text: string,
  env: Record<string, string> = {},
): { config: unknown; comments: string[]; text: string } {
  const result = convert(text, "old.yml");
  expect(parseConfig(result, env).problems).toEqual([]);
  const comments = result.split("\n").flatMap((line) => (line.startsWith("#") ? [line.slice(2)] : []));
  return { config: parse(result), comments, text: result };
}

describe("litestream.yml", () => {
  test("of 0.5", () => {
    const { config, comments } = converted(
      `
addr: ":9090"
access-key-id: AKIA
exec: gunicorn app
levels: [{ interval: 10s }]
snapshot: { interval: 12h, retention: 72h }
logging: { level: WARN, type: pretty, stderr: true }
mcp-addr: ":3001"
heartbeat-url: https://user:hunter2@example.com/beat?token=hunter2
dbs:
  - path: /data/app.db
    monitor-interval: 1s
    meta-path: /meta
    replica: { url: s3://bucket/app, sync-interval: 5s, auto-recover: true, age: { identities: [x] } }
  - dir: /data/tenants
    pattern: "*.db"
    watch: true
    replica: { type: s3, bucket: bucket, path: tenants, region: eu }
`,
    );
    expect(config).toEqual({
      addr: ":9090",
      "access-key-id": "AKIA",
      exec: "gunicorn app",
      levels: [{ interval: "10s" }],
      snapshot: { interval: "12h", retention: "72h" },
      logging: { level: "WARN", type: "text" },
      dbs: [
        { path: "/data/app.db", store: { url: "s3://bucket/app", "sync-interval": "5s" } },
        {
          dir: "/data/tenants",
          pattern: "*.db",
          store: { type: "s3", bucket: "bucket", path: "tenants", region: "eu" },
        },
      ],
    });
    expect(comments).toEqual([
      'no counterpart: dbs[0].meta-path: "/meta"',
      'no counterpart: dbs[0].age: {"identities":["x"]}',
      'no counterpart: mcp-addr: ":3001"',
      'no counterpart: heartbeat-url: "https://***@example.com/beat?token=***',
    ]);
  });

  test("of 0.3, whose replicas have retention and snapshots of their own", () => {
    const { config, comments } = converted(`
dbs:
  - path: /data/app.db
    replicas:
      - url: s3://bucket/app
        retention: 48h
        snapshot-interval: 6h
        validation-interval: 1h
      - { type: s3, bucket: other, path: b, secret-access-key: hunter2 }
  - path: /data/b.db
    replicas: [{ name: main, type: file, path: /backup/b, retention: 24h }]
`);
    expect(config).toEqual({
      dbs: [
        { path: "/data/app.db", store: "s3://bucket/app" },
        { path: "/data/b.db", store: { type: "file", path: "/backup/b" } },
      ],
      snapshot: { retention: "48h", interval: "6h" },
    });
    expect(comments).toEqual([
      'one store for each database; left out: dbs[0]: {"type":"s3","bucket":"other","path":"b","secret-access-key":"***"}',
      'one snapshot setting for all databases; left out: dbs[1].retention: "24h"',
    ]);
  });

  test("with variables in any spelling", () => {
    const { text } = converted('dbs:\n  - path: $HOME/app.db\n    replica: { url: "${STORE}", region: ${REGION} }\n', {
      HOME: "/h",
      STORE: "s3://b/a",
      REGION: "eu",
    });
    expect(text).toBe("dbs:\n  - path: ${HOME}/app.db\n    store:\n      url: ${STORE}\n      region: ${REGION}\n");
  });

  test("with a store that this version doesn't have says so", () => {
    const result = convert("dbs: [{ path: a, replica: { type: gs, bucket: b, path: p } }]", "old.yml");
    expect(result).toMatch(/^# dbs\[0\]: stores of type "gs" are not part of this version/);
  });
});

describe("litefs.yml", () => {
  test("of a cluster", () => {
    const { config, comments } = converted(
      `
fuse: { dir: /litefs }
data: { dir: /var/lib/litefs }
exit-on-error: false
http: { addr: ":20203" }
proxy:
  addr: ":8080"
  target: "localhost:8081"
  db: db
  passthrough: ["/static/*", "*.png"]
  always-forward: ["/login"]
  max-lag: 5s
  idle-timeout: 30s
lease:
  type: consul
  advertise-url: "http://\${HOSTNAME}:20203"
  candidate: \${FLY_REGION == PRIMARY_REGION}
  promote: true
  consul: { url: "https://:hunter2@consul:8500/x", key: litefs/primary, ttl: 15s }
backup: { type: file, path: /backup }
exec:
  - { cmd: migrate, if-candidate: true }
  - cmd: serve
log: { format: json, debug: true }
`,
      { SLUICE_SECRET: "a secret of all nodes" },
    );
    expect(config).toEqual({
      dbs: [{ dir: "/litefs", pattern: "*", store: "file:///litefs-store" }],
      node: { listen: ":20203", advertise: "http://${HOSTNAME}:20203" },
      cluster: { secret: "${SLUICE_SECRET}" },
      lease: {
        type: "consul",
        ttl: "15s",
        candidate: "${FLY_REGION == PRIMARY_REGION}",
        promote: true,
        consul: { url: "https://:hunter2@consul:8500/x", key: "litefs/primary" },
      },
      proxy: {
        listen: ":8080",
        app: "http://localhost:8081",
        "max-lag": "5s",
        routes: [
          { path: "/static/*", mode: "pass" },
          { path: "/*.png", mode: "pass" },
          { path: "/login", mode: "write" },
        ],
      },
      exec: [{ cmd: "migrate", on: "primary", wait: true }, { cmd: "serve" }],
      logging: { type: "json", level: "debug" },
    });
    expect(comments.join("\n")).toMatch(/SLUICE_SECRET[^]*no counterpart: proxy.idle-timeout: "30s"/);
    expect(comments.join("\n")).toMatch(/no counterpart: backup/);
    expect(comments.join("\n")).not.toMatch(/hunter2|exit-on-error|max-lag/);
  });

  test("with a fixed primary", () => {
    const { config, comments } = converted(
      `
fuse: { dir: /litefs }
lease: { type: static, hostname: a, advertise-url: "http://a:20202", candidate: true }
proxy: { addr: ":8080" }
`,
      { SLUICE_SECRET: "a secret of all nodes" },
    );
    expect(config).toEqual({
      dbs: [{ dir: "/litefs", pattern: "*", store: "file:///litefs-store" }],
      node: { name: "a", listen: ":20202" },
      cluster: { secret: "${SLUICE_SECRET}" },
      lease: { type: "static", primary: "http://a:20202" },
    });
    expect(comments.join("\n")).toContain("node.advertise: where the others reach each node");
  });

  test("with a plain command", () => {
    const { config } = converted("fuse: { dir: /mnt }\nexec: serve --port 80\n");
    expect(config).toEqual({
      dbs: [{ dir: "/mnt", pattern: "*", store: "file:///mnt-store" }],
      exec: "serve --port 80",
    });
  });
});

test.each(["", "a: 1", "- 1", "dbs: [", "hello"])("%j is neither", (text) => {
  expect(() => convert(text, "old.yml")).toThrow(expect.objectContaining({ code: "SLU-1002" }));
});

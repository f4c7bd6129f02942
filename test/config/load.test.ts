import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Config } from "../../src/config/config.ts";
import { findConfig, loadConfig } from "../../src/config/load.ts";
import { isSluiceError } from "../../src/errors/error.ts";

let dir: string;
let file: string;

beforeAll(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), "sluice-config-"));
  file = path.join(dir, "sluice.yml");
});
afterAll(() => rmSync(dir, { recursive: true }));

function load(text: string, env: Record<string, string> = {}): Config {
  writeFileSync(file, text);
  return loadConfig(file, env);
}

/** The error's code and its lines, without the file's name. */
function problems(text: string, env: Record<string, string> = {}): string[] {
  try {
    load(text, env);
  } catch (error) {
    if (!isSluiceError(error)) throw error;
    const { code, message } = error;
    return [code, ...message.split("\n").map((line) => line.replace(`${file}:`, ""))];
  }
  return [];
}

const DB = "dbs:\n  - { path: app.db, store: s3://bucket/app }\n";

describe("a valid file", () => {
  test("of one database has every default", () => {
    const config = load(DB);
    expect(config).toEqual({
      file,
      dbs: [
        {
          kind: "file",
          path: path.join(dir, "app.db"),
          store: { url: "s3://bucket/app", settings: {} },
          storeOnly: false,
          syncIntervalMs: 1000,
          restoreIfMissing: false,
        },
      ],
      snapshotIntervalMs: 86_400_000,
      snapshotRetentionMs: 86_400_000,
      levels: [{ intervalMs: 30_000 }, { intervalMs: 300_000 }, { intervalMs: 3_600_000 }],
      l0RetentionMs: 300_000,
      shutdownSyncTimeoutMs: 30_000,
      node: { name: os.hostname(), listen: undefined },
      metricsListen: undefined,
      secret: undefined,
      cluster: undefined,
      proxy: undefined,
      exec: [],
      logging: { level: undefined, type: undefined },
    });
  });

  test("may say everything that one node knows", () => {
    const config = load(
      `
dbs:
  - path: ~/app.db
    store: file:///backup/app
    sync-interval: 250ms
  - dir: tenants
    pattern: "*.sqlite"
    recursive: true
    store: ./backup/tenants
snapshot: { interval: 1h30m, retention: 7d }
levels: [{ interval: 10s }]
node: { name: one, listen: "[::1]:20202", advertise: http://here:1 }
cluster: { secret: 0123456789 }
lease: { type: static, primary: http://here:1 }
exec:
  - { cmd: migrate, on: primary, wait: true }
  - cmd: serve
logging: { level: DEBUG, type: json }
`.replace("0123456789", '"0123456789"'),
      { HOME: "/home/me" },
    );
    expect(config.dbs).toMatchObject([
      { path: "/home/me/app.db", syncIntervalMs: 250, store: { url: "file:///backup/app" } },
      {
        dir: path.join(dir, "tenants"),
        pattern: "*.sqlite",
        recursive: true,
        store: { url: `file://${dir}/backup/tenants` },
      },
    ]);
    expect(config).toMatchObject({
      snapshotIntervalMs: 5_400_000,
      snapshotRetentionMs: 604_800_000,
      levels: [{ intervalMs: 10_000 }],
      node: { name: "one", listen: { host: "::1", port: 20_202 } },
      secret: "0123456789",
      exec: [
        { cmd: "migrate", on: "primary", wait: true },
        { cmd: "serve", on: "any", wait: false },
      ],
      logging: { level: "debug", type: "json" },
    });
  });

  test.each([
    ["replica: { url: s3://bucket/app, region: eu, sync-interval: 3s }", "s3://bucket/app", { region: "eu" }],
    [
      "replicas: [{ type: s3, bucket: bucket, path: /app, part-size: 10MB }]",
      "s3://bucket/app",
      { partSizeBytes: 10e6 },
    ],
    ["replica: { type: file, path: backup }", "file://DIR/backup", {}],
    ["replica: s3://bucket/app", "s3://bucket/app", {}],
  ])("accepts Litestream's %s", (spelling, url, settings) => {
    const [db] = load(`dbs:\n  - path: app.db\n    ${spelling}\n`).dbs;
    expect(db?.store).toEqual({ url: url.replace("DIR", dir), settings });
  });

  test("takes settings at the top as defaults of every store, and Litestream's variables for credentials", () => {
    const config = load(`${DB}region: eu\naccess-key-id: mine\n`, { LITESTREAM_SECRET_ACCESS_KEY: "s" });
    expect(config.dbs[0]?.store.settings).toEqual({ region: "eu", accessKeyId: "mine", secretAccessKey: "s" });
  });

  test("takes exec as Litestream's plain string", () => {
    expect(load(`${DB}exec: gunicorn app`).exec).toEqual([{ cmd: "gunicorn app", on: "any", wait: false }]);
  });
});

describe("variables", () => {
  test("are expanded in values, with defaults; never into other types or keys", () => {
    const env = { A: "x", N: "4", KEY: "0123456789", EVIL: "a\nexec: rm", EMPTY: "" };
    const config = load(
      `dbs:
  - path: \${A}-\${N}.db
    store: { type: s3, bucket: "\${EMPTY:-bucket}", path: \${NONE:-p}, concurrency: \${N}, force-path-style: \${T:-true} }
cluster: { secret: \${KEY} }
node: { name: "\${EVIL}" }
lease: { type: none, candidate: \${ A == "x" } } # \${COMMENT}
`,
      env,
    );
    expect(config.dbs[0]).toMatchObject({
      path: path.join(dir, "x-4.db"),
      store: { url: "s3://bucket/p", settings: { concurrency: 4, forcePathStyle: true } },
    });
    expect(config.secret).toBe("0123456789");
    expect(config.node.name).toBe("a\nexec: rm");
  });

  test.each([
    ['${ A == "x" }', true],
    ["${ A != 'x' }", false],
    ["${A==B}", false],
    ["${A == A}", true],
    ['${NONE == ""}', true],
  ])("%s is a comparison as in LiteFS", (expression, expected) => {
    const env = { A: "x", B: "y" };
    const spellings = [expression, `'${expression.replaceAll("'", "''")}'`, JSON.stringify(expression)];
    for (const spelling of spellings)
      expect(load(`dbs: [{ dir: ., store: s3://b/x, recursive: ${spelling} }]`, env).dbs[0]).toMatchObject({
        recursive: expected,
      });
  });

  test("HOSTNAME is there also where the shell doesn't export it", () => {
    expect(load(`${DB}node: { name: \${HOSTNAME} }`).node.name).toBe(os.hostname());
    expect(load(`${DB}node: { name: \${HOSTNAME} }`, { HOSTNAME: "1234" }).node.name).toBe("1234");
  });

  test("that are missing or make no sense are errors with their line", () => {
    expect(problems("dbs:\n  - path: ${NONE}\n    store: ${a b}\n")).toEqual([
      "SLU-1002",
      "2:11: the environment variable NONE is not set; ${NONE:-default} gives a default",
      "3:12: ${a b} is neither a variable nor a comparison",
      expect.stringMatching(/^2:11: dbs\.0\.path: /),
      expect.stringMatching(/^3:12: dbs\.0\.store: /),
    ]);
  });
});

describe("a wrong file", () => {
  test.each([
    [`${DB}snapshoot: {}`, '3:1: unknown key "snapshoot"; did you mean "snapshot"?'],
    [
      "dbs:\n  - path: a\n    store: s3://b/a\n    snapshot: {}\n",
      '4:5: unknown key "snapshot": it belongs at the top of the file',
    ],
    [`${DB}snapshot: { path: a }\n`, '3:13: unknown key "path" here; it belongs in another place'],
    ["dbs:\n  - path: a\n    stroe: s3://b/a\n", '3:5: unknown key "stroe"; did you mean "store"?'],
    [`${DB}node:\n  xyzzy: 1\n`, '4:3: unknown key "xyzzy"'],
    [
      "dbs:\n  - path: a\n    store:\n      url: s3://b\n      acess-key-id: x\n",
      '5:7: unknown key "acess-key-id"; did you mean "access-key-id"?',
    ],
    [`${DB}exec:\n  - { cmd: a, on: primry }\n`, expect.stringMatching(/^4:19: exec\.0\.on: .*"primary"/)],
    [`${DB}snapshot: { interval: 24x }`, '3:23: snapshot.interval: "24x" is not a duration such as 1s, 5m or 24h'],
    [`${DB}part-size: much`, '3:12: part-size: "much" is not a size such as 10MB or 64MiB'],
    ["dbs: []", expect.stringMatching(/^1:6: dbs: /)],
    ["", expect.stringMatching(/^1:1: dbs: /)],
    ["dbs:\n  - path: a\n", "2:5: a database needs one `store`"],
    ["dbs:\n  - { path: a, store: s3://b/a, replica: s3://b/b }", "2:5: a database needs one `store`"],
    ["dbs:\n  - { path: a, dir: b, store: s3://b/a }", "2:5: a database needs either `path` or `dir`"],
    ["dbs:\n  - path: a\n    replica: { type: s3, path: x }", "3:14: an S3 store needs a `bucket` or a `url`"],
    [`${DB}node: { listen: 20202 }`, expect.stringMatching(/^3:17: node\.listen: /)],
    [`${DB}node: { listen: "here" }`, '3:17: "here" is no address such as 127.0.0.1:20202'],
    [`${DB}node: { listen: ":20202" }`, "3:17: cluster.secret is required unless node.listen is loopback"],
    [`${DB}cluster: { secret: short }`, expect.stringMatching(/^3:20: cluster\.secret: /)],
    [
      `${DB}sse-customer-key-path: nowhere`,
      expect.stringMatching(/^2:\d+: sse-customer-key-path can't be read: ENOENT/),
    ],
  ])("%j", (text, problem) => {
    expect(problems(text)).toEqual(["SLU-1002", problem]);
  });

  test("that is no YAML is an error with its line", () => {
    expect(problems("dbs:\n  - path: [a\n")[1]).toMatch(/^3:1: /);
    expect(problems("dbs: &a [*a]\ndbs: 2")[1]).toMatch(/^2:1: /);
  });

  test("lists all its problems at once", () => {
    expect(problems("dbs:\n  - path: a\n    stroe: b\nnode: { nme: x }\nlevels: 1\n")).toHaveLength(4);
  });

  test.each([
    ["lease: { type: consul }", /^3:8: a lease is for several nodes: node\.advertise/],
    ["node: { advertise: http://a:1 }", /^3:7: node\.listen must say/],
    ["node: { advertise: http://a:1, listen: 127.0.0.1:1 }\nlease: { type: none }", /^4:\d+: `none` is for one node/],
    ["node: { advertise: http://a:1, listen: 127.0.0.1:1 }\nlease: { type: static }", /needs `primary`/],
    ["node: { advertise: http://a:1, listen: 127.0.0.1:1 }\nlease: { ttl: 500ms }", /less than 2s/],
    [
      "node: { advertise: http://a:1, listen: 127.0.0.1:1 }\nlease: { type: consul, ttl: 9s }",
      /^4:29: a session of Consul's lives for 10s/,
    ],
    ["exec: [{ cmd: a, on: replica }]", /^3:22: a lone node/],
  ])("of a cluster that doesn't fit together (%s) says so", (text, problem) => {
    expect(problems(DB + text)).toEqual(["SLU-1002", expect.stringMatching(problem)]);
  });

  test.each([
    ["consul", { url: "http://127.0.0.1:8500", lockDelayMs: 1_000 }],
    ["etcd", { urls: ["http://127.0.0.1:2379"] }],
  ])("of a cluster with %s has its certificates by absolute paths", (type, rest) => {
    const text = `${DB}node: { advertise: "http://a:1", listen: "127.0.0.1:1" }\nlease: { type: ${type}, ${type}: { tls: { ca: ca.pem } } }`;
    const { cluster } = load(text);
    expect(cluster?.lease.place).toMatchObject({
      type,
      ...rest,
      key: "sluice/primary",
      tls: { ca: path.join(dir, "ca.pem") },
    });
  });

  test("of a cluster has a lease beside the first database's log by default", () => {
    const { cluster } = load(`${DB}node: { advertise: "http://a:1", listen: "127.0.0.1:1" }`);
    expect(cluster).toMatchObject({
      advertise: "http://a:1",
      lease: { place: { type: "store" }, ttlMs: 10_000, candidate: true, promote: false },
    });
  });
});

describe("two entries", () => {
  const two = (one: string, other: string): string[] => problems(`dbs:\n  - { ${one} }\n  - { ${other} }\n`);

  test.each([
    ["path: a.db, store: s3://b/1", "path: ./x/../a.db, store: s3://b/2"],
    ["path: link.db, store: s3://b/1", "path: real.db, store: s3://b/2"],
    ["dir: t, store: s3://b/1", "path: t/a.db, store: s3://b/2"],
    ["path: t/u/a.db, store: s3://b/1", "dir: t, recursive: true, store: s3://b/2"],
    ["dir: t, store: s3://b/1", 'dir: t, pattern: "*", store: s3://b/2'],
    ["dir: t, recursive: true, store: s3://b/1", "dir: t/u, store: s3://b/2"],
  ])("protect one database: %s, %s", (one, other) => {
    mkdirSync(path.join(dir, "t/u"), { recursive: true });
    rmSync(path.join(dir, "link.db"), { force: true });
    writeFileSync(path.join(dir, "real.db"), "");
    symlinkSync("real.db", path.join(dir, "link.db"));
    expect(two(one, other)).toEqual(["SLU-1002", expect.stringMatching(/^3:5: .* is protected by dbs\[0\] already$/)]);
  });

  test.each([
    ["path: a.db, store: s3://b/1", "path: b.db, store: s3://b/1/"],
    ["dir: t, store: s3://b/1", "path: b.db, store: s3://b/1/b.db"],
    ["path: a.db, store: backup", "path: b.db, replica: { path: ./backup }"],
    ["path: a.db, store: s3://b/1?endpoint=http://m", "path: b.db, store: { url: s3://b/1, endpoint: http://m }"],
  ])("write one log: %s, %s", (one, other) => {
    expect(two(one, other)).toEqual(["SLU-1002", expect.stringMatching(/^3:5: dbs\[0\] uses the same store/)]);
  });

  test.each([
    ["dir: t, store: s3://b/1", "path: t/u/a.db, store: s3://b/2"],
    ["dir: t, store: s3://b/1", 'dir: t, pattern: "*.sqlite", store: s3://b/2'],
    ["dir: t, store: s3://b/1", "dir: t/u, store: s3://b/2"],
    ["path: a.db, store: s3://b/1", "path: b.db, store: s3://b/10"],
    ["path: a.db, store: s3://b/1?endpoint=http://m", "path: b.db, store: s3://b/1?endpoint=http://n"],
  ])("stand beside each other: %s, %s", (one, other) => {
    expect(two(one, other)).toEqual([]);
  });
});

describe("where the configuration is", () => {
  test("as given, then SLUICE_CONFIG; what is named must be there", () => {
    writeFileSync(file, DB);
    expect(findConfig(file, { SLUICE_CONFIG: "/none" })).toBe(file);
    expect(findConfig(undefined, { SLUICE_CONFIG: file })).toBe(file);
    expect(() => findConfig("/none.yml", {})).toThrow(expect.objectContaining({ code: "SLU-1001" }));
    expect(() => findConfig(undefined, { SLUICE_CONFIG: "/none.yml" })).toThrow("/none.yml");
  });

  test("a file that can't be read is SLU-1001", () => {
    expect(() => loadConfig(dir, {})).toThrow(expect.objectContaining({ code: "SLU-1001" }));
  });
});

import { globSync, readFileSync } from "node:fs";
import fc from "fast-check";
import { expect, test } from "vitest";
import type { Config } from "../../src/config/config.ts";
import { convert } from "../../src/config/convert.ts";
import { explain } from "../../src/config/explain.ts";
import { parseConfig } from "../../src/config/load.ts";
import { resolveConfig } from "../../src/config/resolve.ts";
import { isSluiceError } from "../../src/errors/error.ts";
import { fuzz, mutatedText } from "../fuzz/fuzz.ts";

/** All that stands in a fence of the documentation, and a file with everything. */
const documented = globSync(["README.md", "docs/*.md", "examples/*/sluice.yml"])
  .flatMap((file) => {
    const text = readFileSync(file, "utf8");
    return file.endsWith(".md") ? [...text.matchAll(/```yaml\n(.*?)```/gs)].map(([, fenced]) => fenced!) : [text];
  })
  .filter((text) => text.length < 4_000);
const SECRET = "hunter2";
const full = `
dbs:
  - { path: /a, store: "s3://me:${SECRET}@bucket/a?secret-access-key=${SECRET}", sync-interval: 10s }
  - { dir: /t, recursive: true, pattern: "*.x", replica: { type: s3, bucket: b, access-key-id: x, secret-access-key: ${SECRET} } }
node: { name: "\${HOSTNAME}", listen: ":20202", advertise: "http://a:1" }
cluster: { secret: \${SECRET}, tls: { cert: c, key: k } }
lease: { type: etcd, etcd: { url: "http://h:1", key: k, username: u, password: ${SECRET} } }
proxy: { listen: ":1", app: "http://127.0.0.1:2", routes: [{ path: "/*", mode: pass }], trusted-proxies: [10.0.0.0/8] }
exec: [{ cmd: "serve --token ${SECRET}", on: primary, wait: true }]
levels: [{ interval: 30s }, { interval: "\${X:-5m}" }]
`;
/** Of which nine lines would make a billion values. */
const bomb = `a: &a [x, x, x]\n${"b c d e f g h i"
  .split(" ")
  .map((name, i) => `${name}: &${name} [${`*${"abcdefgh"[i]}, `.repeat(9)}]\n`)
  .join("")}`;
const env = { SECRET: "hunter3-hunter3", HOSTNAME: "h" };

fuzz("a changed configuration is read, or its problems are named; nothing of it is thrown", 250, () =>
  fc.asyncProperty(mutatedText(full, bomb, ...documented), async (text) => {
    const { value, problems } = parseConfig(text, env);
    expect(value === undefined).toBe(problems.length > 0);
    for (const { line, column } of problems) expect(Math.min(line, column)).toBeGreaterThan(0);
    // What a variable holds is nobody's business, whatever it was put into.
    expect(JSON.stringify(problems)).not.toContain("hunter3");
    const resolved = value && resolveConfig(value, "/etc/sluice.yml", env);
    if (resolved === undefined || !("dbs" in resolved)) return;
    expect(explain(resolved).text).not.toContain("hunter3");
  }),
);

test("a secret in a key is not in the problem", () => {
  for (const text of ["cluster: {{ secret: ${SECRET} }}", '? { a: "${SECRET}" }\n: 1', "? [*a, &a ${SECRET}]\n: 1"]) {
    const { problems } = parseConfig(`dbs: [{ path: a, store: b }]\n${text}\n`, env);
    expect(problems).toHaveLength(1);
    expect(JSON.stringify(problems)).not.toContain("hunter");
  }
});

test("a configuration that would fill the memory, or goes round in a circle, is refused", () => {
  for (const text of [bomb, "dbs: &a [*a]"]) expect(parseConfig(text, env).problems.length).toBeGreaterThan(0);
  const { value } = parseConfig(full, env);
  const resolved = resolveConfig(value!, "/etc/sluice.yml", env) as Config;
  expect(explain(resolved).text).not.toMatch(/hunter/);
});

fuzz("a configuration of another program is converted, or refused", 150, () => {
  const litestream = `
access-key-id: a
dbs:
  - path: /a
    replicas: [{ type: s3, bucket: b, path: p, region: r, secret-access-key: ${SECRET} }, { url: "s3://u:${SECRET}@b" }]
  - path: /b
    snapshot: { interval: 1h }
    replica: { type: sftp, host: h, user: u, password: ${SECRET}, key-path: /k }
`;
  const litefs = `
fuse: { dir: /litefs }
data: { dir: /var/lib/litefs, retention: 10m }
proxy: { addr: ":8080", target: "localhost:8081", db: db, passthrough: ["*.ico"] }
lease: { type: consul, advertise-url: "http://h:20202", candidate: \${FLY_REGION == PRIMARY_REGION}, consul: { url: "http://:${SECRET}@h", key: k } }
exec: [{ cmd: "serve --password ${SECRET}", if-candidate: true }]
`;
  return fc.asyncProperty(mutatedText(litestream, litefs), async (text) => {
    try {
      convert(text, "other.yml");
    } catch (error) {
      if (!isSluiceError(error, "SLU-1002")) throw error;
    }
  });
});

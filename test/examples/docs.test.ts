import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { parseConfig } from "../../src/config/load.ts";
import { resolveConfig } from "../../src/config/resolve.ts";

const root = path.resolve(import.meta.dirname, "../..");
const FOLDERS = [".", "docs", "examples", "integrations"];
const SKIPPED = new Set(["node_modules", ".git", "dist"]);

function pages(dir: string, isDeep: boolean): string[] {
  return readdirSync(dir, { withFileTypes: true }).flatMap((entry) => {
    const file = path.join(dir, entry.name);
    if (entry.isDirectory()) return isDeep && !SKIPPED.has(entry.name) ? pages(file, true) : [];
    return entry.name.endsWith(".md") ? [file] : [];
  });
}

const texts = FOLDERS.flatMap((folder) => pages(path.join(root, folder), folder !== ".")).map(
  (file) => [path.relative(root, file), readFileSync(file, "utf8")] as const,
);

/** What a guide has its reader set. */
const environment = {
  STORE_URL: "s3://bucket/ledger",
  SLUICE_SECRET: "0123456789abcdef",
  HOSTNAME: "one",
  NODE_URL: "http://10.0.0.7:20202",
};

describe.each(texts)("%s", (name, text) => {
  test("links lead somewhere", () => {
    const targets = Array.from(text.matchAll(/\]\(([^)\s]+)\)/g), ([, target]) => target ?? "");
    const local = targets
      .filter((target) => !/^(?:https?:|#)/.test(target))
      .map((target) => target.split("#")[0] ?? "");
    const lost = local.filter((target) => !existsSync(path.join(root, path.dirname(name), target)));
    expect(lost).toEqual([]);
  });

  test("configurations are valid, those of a part, too", () => {
    const blocks = Array.from(text.matchAll(/```yaml\n(.*?)```/gs), ([, block]) => block ?? "");
    for (const block of blocks.filter((block) => OURS.test(block))) {
      const { value, problems } = parseConfig(whole(block), environment);
      expect(problems, block).toEqual([]);
      const resolved = value && resolveConfig(value, path.resolve("sluice.yml"), environment);
      expect(Array.isArray(resolved) ? resolved : [], block).toEqual([]);
    }
  });
});

const OURS = /^(?:dbs|node|cluster|lease|proxy|exec|snapshot|levels):/m;

/** A page may show one part of a configuration: the rest of a node's stands around it. */
function whole(block: string): string {
  const around = {
    dbs: "[{ path: /data/app.db, store: s3://bucket/app }]",
    node: '{ listen: ":20202", advertise: "http://10.0.0.7:20202" }',
    cluster: "{ secret: 0123456789abcdef }",
  };
  const missing = Object.entries(around).filter(([key]) => !new RegExp(`^${key}:`, "m").test(block));
  const lines = missing.map(([key, value]) => `${key}: ${value}\n`).join("") + block;
  const proxy = /^proxy:\n(?!(?: .*\n)* {2}app:)/m;
  return lines.replace(proxy, 'proxy:\n  listen: ":8080"\n  app: http://127.0.0.1:8000\n');
}

test.each(["django", "node-app"])("examples/%s/sluice.yml is valid, alone and in a cluster", (name) => {
  const text = readFileSync(path.join(root, "examples", name, "sluice.yml"), "utf8");
  const { NODE_URL, ...always } = environment;
  const alone = parseConfig(text, always);
  expect(alone.problems).toEqual([]);
  expect(alone.value?.node).toMatchObject({ listen: "127.0.0.1:20202", advertise: "http://127.0.0.1:20202" });
  expect(alone.value?.lease).toMatchObject({ type: "store", candidate: true });
  const fly = { FLY_REGION: "ord", PRIMARY_REGION: "fra", NODE_LISTEN: ":20202" };
  const far = parseConfig(text, { ...environment, ...fly });
  expect(far.value?.node).toMatchObject({ listen: ":20202", advertise: NODE_URL });
  expect(far.value?.lease).toMatchObject({ candidate: false });
  // Without the secret there is no cluster that anybody may join.
  const messages = parseConfig(text, { STORE_URL: environment.STORE_URL }).problems.map(({ message }) => message);
  expect(messages.join()).toContain("SLUICE_SECRET");
});

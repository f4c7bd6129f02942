import { execFile } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { lacks, peers } from "../peers/peers.ts";

const run = promisify(execFile);
const root = path.resolve(import.meta.dirname, "../..");
const FILES = ["compose.yml", "kubernetes.yml", "fly.toml"] as const;

interface Manifests {
  readonly "compose.yml": {
    readonly services: Readonly<Record<string, { readonly environment: Readonly<Record<string, string>> }>>;
  };
  readonly "kubernetes.yml": readonly {
    readonly kind: string;
    readonly spec: {
      readonly template: { readonly spec: { readonly containers: readonly { env: readonly { name: string }[] }[] } };
    };
  }[];
  readonly "fly.toml": { readonly env: Readonly<Record<string, string>>; readonly processes: { readonly app: string } };
}

async function validate(dir: string): Promise<Manifests> {
  const script = path.join(import.meta.dirname, "validate.py");
  const { stdout } = await run(peers.validators, [script, ...FILES.map((name) => path.join(dir, name))]);
  return JSON.parse(stdout) as Manifests;
}

/** Variables of a configuration: whether each must be set. */
function variables(file: string): Map<string, boolean> {
  const found = readFileSync(file, "utf8").matchAll(/\$\{(\w+)(:-[^}]*)?\}/g);
  return new Map(Array.from(found, ([, name, fallback]) => [name ?? "", fallback === undefined]));
}

describe.each(["django", "node-app"])("examples/%s", (name) => {
  const dir = path.join(root, "examples", name);

  test("the image is made of files that are there, and starts Sluice", () => {
    const lines = readFileSync(path.join(dir, "Dockerfile"), "utf8").split("\n");
    const copied = lines
      .filter((line) => line.startsWith("COPY ") && !line.includes("--from"))
      .map((line) => line.split(" "));
    for (const words of copied)
      for (const each of words.slice(1, -1)) expect(existsSync(path.join(dir, each)), each).toBe(true);
    expect(copied.length).toBeGreaterThan(1);
    expect(lines).toContain('CMD ["sluice", "run", "--config", "/app/sluice.yml"]');
  });

  describe.skipIf(lacks("validators"))("its manifests", () => {
    test("are valid, and give every variable that sluice.yml needs", async () => {
      const manifests = await validate(dir);
      const wanted = [...variables(path.join(dir, "sluice.yml"))];
      const always = wanted.filter(([, isNeeded]) => isNeeded).map(([variable]) => variable);
      const known = wanted.map(([variable]) => variable);
      expect(always.toSorted()).toEqual(["SLUICE_SECRET", "STORE_URL"]);
      const asCluster = [...always, "NODE_URL", "NODE_LISTEN"];
      expect(known).toEqual(expect.arrayContaining(asCluster));

      const { services } = manifests["compose.yml"];
      expect(Object.keys(services)).toEqual(["a", "b", "c"]);
      for (const [id, { environment }] of Object.entries(services)) {
        expect(Object.keys(environment)).toEqual(expect.arrayContaining(asCluster));
        expect(environment["NODE_URL"]).toBe(`http://${id}:20202`);
      }
      // Secrets come from a Secret, and from `fly secrets`.
      const open = asCluster.filter((variable) => variable !== "SLUICE_SECRET");
      const set = manifests["kubernetes.yml"].find(({ kind }) => kind === "StatefulSet");
      const names = set?.spec.template.spec.containers[0]?.env.map(({ name }) => name);
      expect(names).toEqual(expect.arrayContaining(open));
      const { env, processes } = manifests["fly.toml"];
      expect([...Object.keys(env), /\b(NODE_URL)=/.exec(processes.app)?.[1]]).toEqual(expect.arrayContaining(open));
    });
  });
});

test.skipIf(lacks("validators"))("manifests would not get by with a mistake", async () => {
  const dir = path.join(root, "examples/django");
  const broken = mkdtempSync(path.join(os.tmpdir(), "sluice-manifests-"));
  try {
    for (const [file, right, wrong] of [
      ["compose.yml", "stop_grace_period: 60s", "stop_grace_period: soon"],
      ["compose.yml", '"a:/data", "store:', '"a:/data", "shop:'],
      ["kubernetes.yml", "replicas: 3", "replicas: three"],
      ["kubernetes.yml", "serviceName:", "servicesName:"],
      ["fly.toml", "internal_port = 8080", 'internal_port = "8080"'],
      ["fly.toml", "auto_stop_machines", "auto_stop_machine"],
    ] as const) {
      for (const each of FILES) cpSync(path.join(dir, each), path.join(broken, each));
      const text = readFileSync(path.join(dir, file), "utf8");
      expect(text).toContain(right);
      writeFileSync(path.join(broken, file), text.replace(right, wrong));
      await expect(validate(broken), wrong).rejects.toThrow(file);
    }
  } finally {
    rmSync(broken, { recursive: true });
  }
});

import { spawn, spawnSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { chmod, mkdtemp, readdir, rm, stat, utimes, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { DirectoryStore } from "../../src/store/directory.ts";
import { bytes, conformance, keysOf } from "./conformance.ts";

let root: string;
beforeAll(async () => {
  root = await mkdtemp(path.join(os.tmpdir(), "sluice-directory-"));
});
afterAll(() => rm(root, { recursive: true, force: true }));

conformance("a directory", {
  open: async () => {
    const dir = await mkdtemp(path.join(os.tmpdir(), "sluice-conformance-"));
    return [new DirectoryStore(path.join(dir, "made/later")), new DirectoryStore(path.join(dir, "made/later"))];
  },
});

test("the time given is the file's", async () => {
  const store = new DirectoryStore(path.join(root, "times"));
  await store.put("a/b", Buffer.from("x"), { timestampMs: 1_700_000_000_123 });
  expect((await stat(path.join(root, "times/a/b"))).mtimeMs).toBeCloseTo(1_700_000_000_123, 0);
});

test("a directory that is made is its owner's alone; one that was there is as it was made", async () => {
  const mode = async (dir: string): Promise<number> => (await stat(path.join(root, dir))).mode & 0o777;
  await new DirectoryStore(path.join(root, "made", "here")).put("a/b", Buffer.from("x"));
  expect([await mode("made"), await mode("made/here")]).toEqual([0o700, 0o700]);
  mkdirSync(path.join(root, "shared"));
  await chmod(path.join(root, "shared"), 0o755);
  await new DirectoryStore(path.join(root, "shared")).put("a/b", Buffer.from("x"));
  expect(await mode("shared")).toBe(0o755);
  expect((await mode("shared/a")) & 0o700).toBe(0o700);
});

test("what killed writers left is never listed, and removed a day later", async () => {
  const dir = path.join(root, "leftovers");
  const store = new DirectoryStore(dir);
  await store.put("key", Buffer.from("x"));
  const [fresh, old] = [`.sluice-${"a".repeat(16)}.tmp`, `.sluice-${"b".repeat(16)}.tmp`];
  for (const name of [fresh, old]) await writeFile(path.join(dir, name), "half");
  const twoDaysAgo = Date.now() / 1000 - 2 * 86_400;
  await utimes(path.join(dir, old), twoDaysAgo, twoDaysAgo);
  expect(await keysOf(store.list(""))).toEqual(["key"]);
  expect((await readdir(dir)).toSorted()).toEqual([fresh, "key"]);
});

test("no temporary file stays, whether a put is written, refused or fails", async () => {
  const dir = path.join(root, "tidy");
  const store = new DirectoryStore(dir);
  await store.put("key", Buffer.from("x"), { condition: "absent" });
  await store.put("key", Buffer.from("y"), { condition: "absent" });
  const broken = async function* () {
    yield Buffer.from("y");
    throw new Error("broken");
  };
  await expect(store.put("key", broken())).rejects.toThrow("broken");
  expect(await readdir(dir)).toEqual(["key"]);
  expect((await bytes(await store.get("key"))).toString()).toBe("x");
});

test.each(["../escape", "a/../../b", "/etc/x", "a//b", ".", ""])(
  "the key %j can't leave the directory",
  async (key) => {
    const store = new DirectoryStore(path.join(root, "inside"));
    await expect(store.put(key, Buffer.from("x"))).rejects.toMatchObject({ code: "SLU-3104" });
  },
);

const small = path.join(os.tmpdir(), `sluice-small-${process.pid}`);
const canMount = process.getuid?.() === 0 && mount();

function mount(): boolean {
  mkdirSync(small);
  return spawnSync("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", small]).status === 0;
}

afterAll(() => {
  if (canMount) spawnSync("umount", [small]);
  return rm(small, { recursive: true, force: true });
});

test.skipIf(!canMount)("a full disk: SLU-3103, nothing half written, and smaller things still fit", async () => {
  const store = new DirectoryStore(small);
  await expect(store.put("big", Buffer.alloc(1_000_000))).rejects.toMatchObject({ code: "SLU-3103" });
  expect(await readdir(small)).toEqual([]);
  expect((await store.put("little", Buffer.alloc(100))).outcome).toBe("written");
});

test.skipIf(!canMount)("a file system that is read-only now: SLU-3102, and what is there can be read", async () => {
  const store = new DirectoryStore(small);
  await store.put("kept", Buffer.from("x"));
  spawnSync("mount", ["-o", "remount,ro", small]);
  await expect(store.put("denied", Buffer.from("x"))).rejects.toMatchObject({ code: "SLU-3102" });
  await expect(store.delete(["kept"])).rejects.toMatchObject({ code: "SLU-3102" });
  expect((await bytes(await store.get("kept"))).toString()).toBe("x");
  spawnSync("mount", ["-o", "remount,rw", small]);
});

test.skipIf(process.getuid?.() === 0)("a missing permission: SLU-3102", async () => {
  const dir = path.join(root, "denied");
  const store = new DirectoryStore(dir);
  await store.put("first", Buffer.from("x"));
  await chmod(dir, 0o500);
  await expect(store.put("denied", Buffer.from("x"))).rejects.toMatchObject({ code: "SLU-3102" });
  await chmod(dir, 0o700);
});

test("a file where the directory should be: SLU-3104", async () => {
  const file = path.join(root, "a-file");
  await writeFile(file, "x");
  await expect(new DirectoryStore(file).put("key", Buffer.from("x"))).rejects.toMatchObject({ code: "SLU-3104" });
});

test("two processes that replace one version: one wins, a hundred times", async () => {
  const dir = path.join(root, "processes");
  const store = new DirectoryStore(dir);
  await store.put("counter", Buffer.from("0"));
  const script = `
    import { DirectoryStore } from ${JSON.stringify(path.resolve("src/store/directory.ts"))};
    const store = new DirectoryStore(${JSON.stringify(dir)});
    let won = 0;
    while (won < 50) {
      const { etag, body } = await store.get("counter");
      let text = "";
      for await (const chunk of body) text += chunk.toString();
      const value = Number(text);
      const { outcome } = await store.put("counter", Buffer.from(String(value + 1)), { condition: { etag } });
      if (outcome === "written") won++;
    }`;
  const children = [0, 1].map(
    () =>
      new Promise((resolve) => {
        const child = spawn(process.execPath, ["--input-type=module", "-e", script], { stdio: "inherit" });
        child.once("exit", resolve);
      }),
  );
  expect(await Promise.all(children)).toEqual([0, 0]);
  expect((await bytes(await store.get("counter"))).toString()).toBe("100");
});

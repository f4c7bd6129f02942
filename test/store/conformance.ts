import { randomBytes } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SluiceError } from "../../src/errors/error.ts";
import type { ObjectInfo, ObjectStore, StoredObject } from "../../src/store/store.ts";

export interface Candidate {
  /** Two stores over the same place, as two machines would have them. */
  readonly open: () => Promise<readonly [ObjectStore, ObjectStore]>;
  readonly skip?: boolean;
  /**
   * The server is known to sort `a/b` before `a-b`: a folder by its bare name. A log never asks for the order of
   * folders, only for that of the files in one.
   */
  readonly sortsFoldersByName?: boolean;
}

/** What every store must do; the log is built on it. Each run uses a folder of its own. */
export function conformance(name: string, { open, skip = false, sortsFoldersByName = false }: Candidate): void {
  describe.skipIf(skip)(`${name} as a store`, () => {
    let store: ObjectStore;
    let other: ObjectStore;
    let scratch: string;
    const root = `run-${randomBytes(6).toString("hex")}`;

    beforeAll(async () => {
      [store, other] = await open();
      scratch = await mkdtemp(path.join(os.tmpdir(), "sluice-conformance-"));
    });

    afterAll(async () => {
      if (store === undefined) return;
      const keys = (await collect(store.list(root))).map(({ key }) => key);
      if (keys.length > 0) await store.delete(keys);
      await rm(scratch, { recursive: true, force: true });
      await store.close();
      await other.close();
    });

    test("what was put is there, whole, with its size, for others too", async () => {
      const body = randomBytes(70_000);
      const outcome = await store.put(`${root}/plain/a`, body);
      expect(outcome.outcome).toBe("written");
      const object = await other.get(`${root}/plain/a`);
      expect(object).toMatchObject({ key: `${root}/plain/a`, sizeBytes: body.length });
      expect(outcome).toEqual({ outcome: "written", etag: object.etag });
      expect(body.equals(await bytes(object))).toBe(true);
      const [listed] = await collect(other.list(`${root}/plain/`));
      expect(listed).toMatchObject({ key: `${root}/plain/a`, sizeBytes: body.length });
      // The store's clock and this one's agree roughly, here.
      expect(Math.abs(listed!.modifiedMs - Date.now())).toBeLessThan(60_000);
    });

    test("a time that is put along doesn't change when the store says it was written", async () => {
      await store.put(`${root}/time`, Buffer.from("x"), { timestampMs: Date.UTC(2020, 1, 2, 3, 4, 5, 120) });
      const [listed] = await collect(store.list(`${root}/time`));
      expect(Math.abs(listed!.modifiedMs - Date.now())).toBeLessThan(60_000);
    });

    test("an empty object is an object", async () => {
      await store.put(`${root}/empty`, new Uint8Array());
      const object = await store.get(`${root}/empty`);
      expect(object.sizeBytes).toBe(0);
      expect(await bytes(object)).toHaveLength(0);
      expect((await bytes(await store.get(`${root}/empty`, { range: { offset: 0, length: 10 } }))).length).toBe(0);
    });

    test("an unconditional put replaces, and the etag changes, even for the same bytes elsewhere", async () => {
      const first = await store.put(`${root}/replaced`, Buffer.from("one"));
      const second = await store.put(`${root}/replaced`, Buffer.from("two"));
      expect((await bytes(await other.get(`${root}/replaced`))).toString()).toBe("two");
      expect(first).not.toEqual(second);
    });

    test("keys are listed in byte order, below a prefix that may end in a name, after a key", async () => {
      const keys = ["a", "a-b", "a.b", "a0", "B", "z", "ü", "日本", "🙂", "a b+c%25&amp;<x>'\"", "~"].map(
        (name) => `${root}/order/${name}`,
      );
      for (const key of keys) await store.put(key, Buffer.from(key));
      const sorted = sortedByBytes(keys);
      expect(await keysOf(other.list(`${root}/order/`))).toEqual(sorted);
      expect(await keysOf(other.list(`${root}/order/a`))).toEqual(sorted.filter((key) => key.includes("/order/a")));
      for (const [i, key] of sorted.entries())
        expect(await keysOf(other.list(`${root}/order/`, { startAfter: key }))).toEqual(sorted.slice(i + 1));
      const between = `${root}/order/a1`;
      expect(await keysOf(other.list(`${root}/order/`, { startAfter: between }))).toEqual(
        sorted.filter((key) => Buffer.compare(Buffer.from(key), Buffer.from(between)) > 0),
      );
      expect(await keysOf(other.list(`${root}/nothing/here`))).toEqual([]);
      for (const key of keys) expect((await bytes(await other.get(key))).toString()).toBe(key);
    });

    test("folders stand where their keys do", async () => {
      const keys = ["a-b", "a.b", "a/b/c", "a/b0", "a0", "b/c"].map((name) => `${root}/folders/${name}`);
      await Promise.all(keys.map((key) => store.put(key, Buffer.from(key))));
      const listed = await keysOf(other.list(`${root}/folders/`));
      expect(sortedByBytes(listed)).toEqual(sortedByBytes(keys));
      expect(listed[0]).toBe(`${root}/folders/${sortsFoldersByName ? "a/b/c" : "a-b"}`);
      expect(sortedByBytes(await keysOf(other.list(`${root}/folders/a/b`)))).toEqual([keys[2], keys[3]]);
    });

    test("more keys than a page has, deleted together", async () => {
      const keys = Array.from({ length: 1_203 }, (_, i) => `${root}/many/${String(i).padStart(6, "0")}`);
      await pool(16, keys, (key) => store.put(key, Buffer.from("x")));
      expect(await keysOf(other.list(`${root}/many/`))).toEqual(keys);
      expect(await keysOf(other.list(`${root}/many/`, { startAfter: keys[1_100]! }))).toEqual(keys.slice(1_101));
      await other.delete([...keys, `${root}/many/never-was`]);
      expect(await keysOf(store.list(`${root}/many/`))).toEqual([]);
    });

    test("ranges: from the front, the middle, to the end, from the end, beyond it", async () => {
      const body = randomBytes(10_000);
      await store.put(`${root}/range`, body);
      const read = async (offset: number, length?: number): Promise<Buffer> => {
        const object = await store.get(`${root}/range`, { range: { offset, ...(length !== undefined && { length }) } });
        expect(object.sizeBytes).toBe(body.length);
        return bytes(object);
      };
      expect(await read(0, 100)).toEqual(body.subarray(0, 100));
      expect(await read(5_000, 100)).toEqual(body.subarray(5_000, 5_100));
      expect(await read(9_990)).toEqual(body.subarray(9_990));
      expect(await read(9_990, 100)).toEqual(body.subarray(9_990));
      expect(await read(-16)).toEqual(body.subarray(-16));
      expect(await read(-20_000)).toEqual(body);
      expect(await read(10_000)).toHaveLength(0);
      expect(await read(20_000, 5)).toHaveLength(0);
    });

    test("a key that isn't there: SLU-3404 to read, nothing to delete", async () => {
      await expect(store.get(`${root}/missing`)).rejects.toMatchObject({ code: "SLU-3404" });
      await expect(store.get(`${root}/missing`, { range: { offset: 0, length: 1 } })).rejects.toBeInstanceOf(
        SluiceError,
      );
      await store.delete([`${root}/missing`]);
      await store.put(`${root}/gone`, Buffer.from("x"));
      await store.delete([`${root}/gone`]);
      await expect(other.get(`${root}/gone`)).rejects.toMatchObject({ code: "SLU-3404" });
    });

    test("of sixteen who create one key at once, one succeeds, and its bytes are there", async () => {
      for (let round = 0; round < 5; round++) {
        const key = `${root}/race/${round}`;
        const bodies = Array.from({ length: 16 }, (_, i) => randomBytes(100 + i * 1_000));
        const outcomes = await Promise.all(
          bodies.map((body, i) => (i % 2 === 0 ? store : other).put(key, body, { condition: "absent" })),
        );
        const winners = outcomes.flatMap(({ outcome }, i) => (outcome === "written" ? [i] : []));
        expect(winners).toHaveLength(1);
        expect(await bytes(await store.get(key))).toEqual(bodies[winners[0]!]);
        const again = await other.put(key, Buffer.from("late"), { condition: "absent" });
        expect(again.outcome).toBe("refused");
      }
    });

    test("of many who replace one version, one succeeds; an old or missing version is refused", async () => {
      const key = `${root}/swap`;
      const first = await store.put(key, Buffer.from("0"), { condition: "absent" });
      if (first.outcome !== "written") throw new Error("not written");
      let etag = first.etag;
      for (let round = 1; round <= 5; round++) {
        const before = etag;
        const outcomes = await Promise.all(
          Array.from({ length: 8 }, (_, i) =>
            (i % 2 === 0 ? store : other).put(key, Buffer.from(`${round} by ${i}`), { condition: { etag: before } }),
          ),
        );
        const written = outcomes.filter((outcome) => outcome.outcome === "written");
        expect(written).toHaveLength(1);
        etag = written[0]!.etag;
        expect((await other.get(key)).etag).toBe(etag);
        expect((await store.put(key, Buffer.from("old"), { condition: { etag: before } })).outcome).toBe("refused");
      }
      expect((await store.put(`${key}-not`, Buffer.from("x"), { condition: { etag } })).outcome).toBe("refused");
      await expect(store.get(`${key}-not`)).rejects.toMatchObject({ code: "SLU-3404" });
    });

    test("a deleted key can be created again", async () => {
      const key = `${root}/again`;
      await store.put(key, Buffer.from("a"), { condition: "absent" });
      await store.delete([key]);
      expect((await other.put(key, Buffer.from("b"), { condition: "absent" })).outcome).toBe("written");
    });

    test("large files and streams of unknown length, with and without a condition", async () => {
      const size = 12 * 1024 * 1024 + 17;
      const content = randomBytes(size);
      const file = path.join(scratch, "large");
      await writeFile(file, content);
      const cases = [
        ["file", () => ({ path: file, sizeBytes: size })],
        ["stream", () => chunked(content, 100_000)],
      ] as const;
      for (const [name, body] of cases) {
        const key = `${root}/large/${name}`;
        expect((await store.put(key, body(), { condition: "absent" })).outcome).toBe("written");
        expect((await other.put(key, body(), { condition: "absent" })).outcome).toBe("refused");
        expect(content.equals(await bytes(await other.get(key)))).toBe(true);
        expect((await store.put(key, body())).outcome).toBe("written");
        const tail = await bytes(await other.get(key, { range: { offset: -1_000 } }));
        expect(tail).toEqual(content.subarray(-1_000));
      }
      const empty = await store.put(`${root}/large/none`, chunked(Buffer.alloc(0), 1), { condition: "absent" });
      expect(empty.outcome).toBe("written");
      expect((await store.get(`${root}/large/none`)).sizeBytes).toBe(0);
    });

    test("a stream that fails leaves nothing", async () => {
      const broken = async function* () {
        yield randomBytes(6 * 1024 * 1024);
        yield randomBytes(6 * 1024 * 1024);
        throw new Error("the source is broken");
      };
      await expect(store.put(`${root}/broken`, broken())).rejects.toThrow("the source is broken");
      expect(await keysOf(other.list(`${root}/broken`))).toEqual([]);
    });

    test("a small file is stored as it is", async () => {
      const file = path.join(scratch, "small");
      const content = randomBytes(20_000);
      await writeFile(file, content);
      const put = await store.put(`${root}/small`, { path: file, sizeBytes: 20_000 }, { condition: "absent" });
      expect(put.outcome).toBe("written");
      expect(content.equals(await bytes(await other.get(`${root}/small`)))).toBe(true);
    });

    test.for([100, 3_000_000])("a file that is shorter than the %i bytes promised is not stored", async (sizeBytes) => {
      const file = path.join(scratch, "short");
      await writeFile(file, "short");
      const outcome = await store
        .put(`${root}/short`, { path: file, sizeBytes }, { condition: "absent" })
        .catch((error: unknown) => error);
      expect(outcome).not.toMatchObject({ outcome: "written" });
      expect(await keysOf(other.list(`${root}/short`))).toEqual([]);
    });

    test("a file that isn't there is an error", async () => {
      const put = store.put(`${root}/none`, { path: path.join(scratch, "none"), sizeBytes: 10 });
      await expect(put).rejects.toMatchObject({ name: "SluiceError" });
    });

    test("a signal ends each call with its reason", async () => {
      const reason = new Error("enough");
      const signal = AbortSignal.abort(reason);
      await store.put(`${root}/signal`, randomBytes(3_000_000));
      await expect(store.get(`${root}/signal`, { signal })).rejects.toBe(reason);
      await expect(collect(store.list(root, { signal }))).rejects.toBe(reason);
      await expect(store.put(`${root}/signal-2`, chunked(Buffer.alloc(10), 5), { signal })).rejects.toBe(reason);
      await expect(store.delete([`${root}/signal`], { signal })).rejects.toBe(reason);
      const stop = new AbortController();
      const object = await store.get(`${root}/signal`, { signal: stop.signal });
      const reading = (async () => {
        for await (const _ of object.body) stop.abort(reason);
      })();
      await expect(reading).rejects.toBe(reason);
      expect(await keysOf(other.list(`${root}/signal`))).toEqual([`${root}/signal`]);
    });

    test("a reader may stop in the middle, and many may use it at once", async () => {
      const bodies = Array.from({ length: 40 }, (_, i) => randomBytes(200_000 + i));
      await Promise.all(bodies.map((body, i) => store.put(`${root}/at-once/${i}`, body, { condition: "absent" })));
      await Promise.all(
        bodies.map(async (body, i) => {
          const object = await store.get(`${root}/at-once/${i}`);
          if (i % 3 === 0) {
            for await (const _ of object.body) break;
            return;
          }
          expect(body.equals(await bytes(object))).toBe(true);
        }),
      );
    });
  });
}

async function collect(list: AsyncIterable<ObjectInfo>): Promise<ObjectInfo[]> {
  return gather(list);
}

export async function keysOf(list: AsyncIterable<ObjectInfo>): Promise<string[]> {
  return (await collect(list)).map(({ key }) => key);
}

export async function bytes(object: StoredObject): Promise<Buffer> {
  return Buffer.concat(await gather(object.body));
}

async function gather<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of items) found.push(item);
  return found;
}

function sortedByBytes(keys: readonly string[]): string[] {
  return keys.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
}

/** A stream that uses its buffer again, as an encoder would. */
async function* chunked(content: Uint8Array, size: number): AsyncIterable<Uint8Array> {
  for (let at = 0; at < content.length; at += size) {
    await Promise.resolve();
    yield content.subarray(at, at + size);
  }
}

async function pool<T>(width: number, items: readonly T[], run: (item: T) => Promise<unknown>): Promise<void> {
  const queue = items.values();
  await Promise.all(
    Array.from({ length: width }, async () => {
      for (const item of queue) await run(item);
    }),
  );
}

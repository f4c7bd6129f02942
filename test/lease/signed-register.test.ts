import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { LeaseRecord } from "../../src/lease/lease.ts";
import { SignedRegister } from "../../src/lease/signed-register.ts";
import { StoreLease } from "../../src/lease/store-lease.ts";
import { DirectoryStore } from "../../src/store/directory.ts";
import { leaseConformance } from "./conformance.ts";

let dir: string;
let places = 0;

beforeAll(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), "sluice-signed-"));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const record: LeaseRecord = {
  nodeId: "a",
  life: "1",
  nodeName: "one",
  advertise: "http://one:1",
  proxy: "http://one:2",
  generation: 3,
  counter: 7,
  ttlMs: 10_000,
};
const never = new AbortController().signal;

function fresh(): { readonly plain: StoreLease; readonly signed: (secret?: string) => SignedRegister } {
  const at = path.join(dir, `p${places++}`);
  const open = (): StoreLease => new StoreLease(new DirectoryStore(at));
  return { plain: open(), signed: (secret = "right") => new SignedRegister(open(), secret) };
}

leaseConformance("a signed record in a directory", {
  open: (place) => new SignedRegister(new StoreLease(new DirectoryStore(path.join(dir, place))), "right"),
  ttlMs: 3_000,
});

describe("a record", () => {
  test("of a node with the secret says where it is", async () => {
    const { signed } = fresh();
    await signed().swap(undefined, record, never);
    expect((await signed().read(never))?.record).toMatchObject(record);
  });

  const { proxy: _proxy, ...rest } = record;
  const unknown = { ...rest, nodeName: "", advertise: "" };

  test("that somebody else wrote is a lease for its ttl, and says nothing about where its owner is", async () => {
    const { plain, signed } = fresh();
    await plain.swap(undefined, record, never);
    const seen = await signed().read(never);
    expect(seen?.record).toEqual(unknown);
    const next = { ...record, nodeId: "b", generation: 4, counter: 8 };
    expect(await signed().swap(seen!.version, next, never)).toMatchObject({ outcome: "written" });
    expect((await signed().read(never))?.record).toMatchObject(next);
  });

  test("of a cluster with another secret is none of ours", async () => {
    const { signed } = fresh();
    await signed("other").swap(undefined, record, never);
    const { mac: _mac, ...seen } = (await signed().read(never))!.record;
    expect(seen).toEqual(unknown);
  });

  test.each([
    "nodeId",
    "life",
    "nodeName",
    "advertise",
    "proxy",
    "generation",
    "counter",
    "ttlMs",
    "released",
  ] as const)("with another %s under a signature that was right is not believed", async (field) => {
    const { plain, signed } = fresh();
    await signed().swap(undefined, record, never);
    const { version, record: good } = (await plain.read(never))!;
    const value = { advertise: "http://evil:1", proxy: "http://evil:1", released: true as const };
    const other = typeof good[field] === "number" ? good[field] + 1 : "x";
    await plain.swap(
      version,
      { ...good, [field]: other, ...(field in value && { [field]: value[field as "proxy"] }) },
      never,
    );
    expect((await signed().read(never))!.record).toMatchObject({ advertise: "", nodeName: "" });
  });

  test.each([
    ["an address that is no URL", { advertise: "nowhere" }],
    ["an address of another kind", { proxy: "file:///etc/passwd" }],
    ["a name that would end a header", { nodeName: "one\r\nSet-Cookie: a=b" }],
    ["a name that would end a line of .primary", { nodeName: "one\n" }],
  ])("with %s is no record", async (_, fields) => {
    const { plain, signed } = fresh();
    await signed().swap(undefined, { ...record, ...fields }, never);
    await expect(plain.read(never)).rejects.toMatchObject({ code: "SLU-8002" });
  });
});

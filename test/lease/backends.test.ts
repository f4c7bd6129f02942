import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll } from "vitest";
import { ConsulLease } from "../../src/lease/consul-lease.ts";
import { EtcdLease } from "../../src/lease/etcd-lease.ts";
import { FileLease } from "../../src/lease/file-lease.ts";
import { StoreLease } from "../../src/lease/store-lease.ts";
import { DirectoryStore } from "../../src/store/directory.ts";
import { lacks } from "../peers/peers.ts";
import { S3Server } from "../store/s3-server.ts";
import { freshName, leaseConformance } from "./conformance.ts";
import { PeerServer } from "./peer-server.ts";

let dir: string;
let s3: S3Server;
let etcd: PeerServer;
let consul: PeerServer;
const withoutS3 = lacks("weed");
const withoutEtcd = lacks("etcd");
const withoutConsul = lacks("consul");

beforeAll(async () => {
  dir = mkdtempSync(path.join(os.tmpdir(), "sluice-lease-"));
  await Promise.all([
    withoutS3 ? undefined : S3Server.start().then((server) => (s3 = server)),
    withoutEtcd ? undefined : PeerServer.etcd().then((server) => (etcd = server)),
    withoutConsul ? undefined : PeerServer.consul().then((server) => (consul = server)),
  ]);
});
afterAll(async () => {
  await Promise.all([s3?.stop(), etcd?.stop(), consul?.stop()]);
  rmSync(dir, { recursive: true, force: true });
});

/** The same place for all registers of one suite. */
function inOnePlace<T>(make: (place: string) => T): (count: number) => Promise<T[]> {
  const place = freshName();
  return (count) => Promise.resolve(Array.from({ length: count }, () => make(place)));
}

leaseConformance("a directory", {
  open: inOnePlace((place) => new StoreLease(new DirectoryStore(path.join(dir, place)))),
  ttlMs: 1_500,
});

leaseConformance("SeaweedFS", {
  open: inOnePlace((place) => new StoreLease(s3.open(place))),
  ttlMs: 2_000,
  skip: withoutS3,
});

leaseConformance("a shared file", {
  open: inOnePlace((place) => new FileLease(path.join(dir, place, "primary"))),
  ttlMs: 1_500,
});

leaseConformance("etcd", {
  open: inOnePlace((key) => new EtcdLease({ urls: [etcd.url], key: `sluice/${key}` }, 2_000)),
  ttlMs: 2_000,
  skip: withoutEtcd,
});

leaseConformance("Consul", {
  open: inOnePlace((key) => new ConsulLease({ url: consul.url, key: `sluice/${key}`, lockDelayMs: 200 }, 2_000)),
  ttlMs: 2_000,
  locks: true,
  skip: withoutConsul,
});

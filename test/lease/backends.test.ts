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
import { leaseConformance } from "./conformance.ts";
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

leaseConformance("a directory", {
  open: (place) => new StoreLease(new DirectoryStore(path.join(dir, place))),
  ttlMs: 3_000,
});

leaseConformance("SeaweedFS", {
  open: (place) => new StoreLease(s3.open(place)),
  ttlMs: 3_000,
  skip: withoutS3,
});

leaseConformance("a shared file", {
  open: (place) => new FileLease(path.join(dir, place, "primary")),
  ttlMs: 3_000,
});

leaseConformance("etcd", {
  open: (key) => new EtcdLease({ urls: [etcd.url], key: `sluice/${key}` }, 3_000),
  ttlMs: 3_000,
  skip: withoutEtcd,
});

leaseConformance("Consul", {
  open: (key) => new ConsulLease({ url: consul.url, key: `sluice/${key}`, lockDelayMs: 200 }, 3_000),
  ttlMs: 3_000,
  locks: true,
  skip: withoutConsul,
});

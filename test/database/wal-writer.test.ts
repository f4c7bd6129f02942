import { copyFileSync, readFileSync } from "node:fs";
import Sqlite from "better-sqlite3";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { scratch } from "./apps.ts";
import { LiveReplica } from "./live-replica.ts";
import { merged, Source } from "./page-sets.ts";

const schema = "create table item(id integer primary key, body blob)";

let dir: ReturnType<typeof scratch>;
let source: Source;
const replicas: LiveReplica[] = [];
beforeEach(() => {
  dir = scratch("wal-writer");
});
afterEach(() => {
  source.close();
  for (const replica of replicas.splice(0)) replica.close();
  dir.remove();
});

function begin(pageSize: number, autoVacuum?: string): void {
  source = new Source(dir.path("source.db"), pageSize, schema, autoVacuum);
  copyFileSync(source.path, dir.path("replica.db"));
}

async function open(): Promise<LiveReplica> {
  const replica = await LiveReplica.open(dir.path("replica.db"));
  replicas.push(replica);
  return replica;
}

function insert(rows: number, bytes: number): void {
  source.db
    .prepare(`with n(i) as (select 1 union all select i + 1 from n where i < ?) insert into item(body)
select randomblob(?) from n`)
    .run(rows, bytes);
}

/** All pages as a SQLite of another process would read them. */
function read(): Buffer {
  const db = new Sqlite(dir.path("replica.db"), { readonly: true });
  try {
    expect(db.pragma("integrity_check", { simple: true })).toBe("ok");
    return db.serialize();
  } finally {
    db.close();
  }
}

function expectSame(): void {
  expect(read().equals(source.bytes)).toBe(true);
}

describe.each([512, 1024, 4096, 65536])("pages of %i bytes", (pageSize) => {
  test("commits are read as SQLite would have written them: growth, shrinking, restarts of the WAL", async () => {
    begin(pageSize, "full");
    const replica = await open();
    let restarts = 0;
    for (let i = 0; i < 12; i++) {
      insert(pageSize > 4096 ? 4 : 40, pageSize * 2);
      if (i % 3 === 2) source.db.exec("delete from item where id % 3 = 0");
      if (i === 5) source.db.exec("vacuum");
      for (const set of source.take()) {
        await replica.apply(set, 1 + (i % 5) * 30);
      }
      expectSame();
      if (i % 4 === 3 && (await replica.restart()) === "restarted") restarts++;
    }
    expect(restarts).toBe(3);
    expect(replica.capture.frame).toBe(0);
    // Everything is in the database file.
    expect(readFileSync(dir.path("replica.db")).equals(source.bytes)).toBe(true);
  });
});

test("frames around the ends of index blocks, one a commit and in large commits", async () => {
  begin(512);
  const replica = await open();
  insert(3900, 450);
  await replica.apply(merged(source.take(), 512));
  const change = async (where: string): Promise<void> => {
    source.db.exec(`update item set body = randomblob(450) where ${where}`);
    for (const set of source.take()) await replica.apply(set, 700);
  };
  for (const last of [4062, 8158]) {
    while (replica.capture.frame < last - 120) await change(`id % 40 = ${replica.capture.frame % 40}`);
    while (replica.capture.frame < last + 5) {
      await change(`id = ${(replica.capture.frame * 7) % 3900}`);
      if (replica.capture.frame > last - 4) expectSame();
    }
  }
  while (replica.capture.frame < 17_000) {
    await change(`id % 2 = ${replica.capture.frame % 2}`);
    expectSame();
  }
  expect(readFileSync(dir.path("replica.db-shm")).length).toBe(5 * 32768);
});

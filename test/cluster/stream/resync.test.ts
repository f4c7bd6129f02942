import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import path from "node:path";
import Sqlite from "better-sqlite3";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ResyncSources } from "../../../src/cluster/stream/resync-sources.ts";
import type { PublishedDatabase } from "../../../src/cluster/stream/published.ts";
import { Replica } from "../../../src/database/replica.ts";
import type { OutgoingChange, ResyncSource } from "../../../src/database/replication.ts";
import { caughtUp, Follower, Lead, LeadDatabase, leadDatabases, Place, until } from "./nodes.ts";
import { Wire } from "./wire.ts";

let place: Place;

beforeEach(() => {
  place = new Place();
});

afterEach(() => place.remove());

const ROWS = 8_000;

/** 8 MB in rows of a page's quarter. */
function fill(app: LeadDatabase): void {
  app.app.exec(
    `with recursive n(i) as (select 1 union all select i+1 from n where i<${ROWS}) insert into t (v) select randomblob(1000) from n`,
  );
}

/** How many pictures of a database were made. */
function countPictures(app: LeadDatabase): { readonly count: number } {
  const pictures = { count: 0 };
  const real = app.resyncSource.bind(app);
  Object.defineProperty(app, "resyncSource", {
    value: () => {
      pictures.count++;
      return real();
    },
  });
  return pictures;
}

function scatter(app: LeadDatabase, rows: number): void {
  const change = app.app.prepare("update t set v = randomblob(1000) where k = ?");
  for (let i = 0; i < rows; i++) change.run(1 + Math.floor((i * ROWS) / rows));
}

describe("a comparison with the primary", () => {
  it("copies a database to its place, and not to where somebody's link leads", async () => {
    const [app] = (await leadDatabases(place, "app.db")) as [LeadDatabase];
    const lead = await Lead.open(place, [app]);
    const one = new Follower(place, "one");
    const victim = path.join(place.dir, "victim");
    writeFileSync(victim, "precious");
    mkdirSync(one.dir);
    symlinkSync(victim, `${one.path("app.db")}.seeding`);
    one.client.follow(lead.url);
    await caughtUp(app, await one.start("app.db"));
    expect(readFileSync(victim, "utf8")).toBe("precious");
  });

  it("moves what differs, not the database", async () => {
    const file = path.join(place.dir, "lead", "app.db");
    const first = await LeadDatabase.open(file, "app.db");
    fill(first);
    const lead = await Lead.open(place, [first]);
    const wire = await Wire.open(lead.url);
    place.closing(() => wire.close());
    const one = new Follower(place, "one");
    one.client.follow(wire.url);
    await caughtUp(first, await one.start("app.db"));
    const whole = wire.downBytes;
    expect(whole).toBeGreaterThan(8_000_000);
    await one.leave("app.db");
    lead.published.remove("app.db");
    scatter(first, 50);
    await first.close();
    // A restarted primary knows no steps to what is newest.
    const second = await LeadDatabase.open(file, "app.db");
    place.closing(() => second.close());
    lead.published.add(second);
    const replica = await one.open("app.db");
    await caughtUp(second, replica);
    expect(replica.checksum).toBe(second.feed.checksum);
    expect(wire.downBytes - whole).toBeLessThan(1_500_000);
    expect(one.read("app.db", "pragma integrity_check")).toBe("ok");
    second.write();
    await caughtUp(second, replica);
    expect(one.problems).toEqual([]);
  });

  it("follows a change with a wrong checksum, which no reader sees", async () => {
    const [app] = (await leadDatabases(place, "app.db")) as [LeadDatabase];
    fill(app);
    const pictures = countPictures(app);
    const lead = await Lead.open(place, [app]);
    const one = new Follower(place, "one");
    one.client.follow(lead.url);
    const replica = await one.start("app.db");
    await caughtUp(app, replica);
    const after = app.feed.after.bind(app.feed);
    const seen: unknown[] = [];
    Object.defineProperty(app.feed, "after", {
      configurable: true,
      value: (position: bigint, oneByOne: number): OutgoingChange | undefined => {
        const change = after(position, oneByOne);
        if (change === undefined) return undefined;
        Reflect.deleteProperty(app.feed, "after");
        return { head: { ...change.head, checksum: 1n }, next: () => change.next() };
      },
    });
    replica.onApplied = () => void seen.push(replica.checksum);
    app.write();
    await caughtUp(app, replica);
    expect(one.problems.map(({ code }) => code)).toEqual(["SLU-2019"]);
    expect(pictures.count).toBe(2);
    await until("applied", () => seen.length > 0);
    expect(seen).toEqual([app.feed.checksum]);
    app.write();
    await caughtUp(app, replica);
  });

  it("heals a file that was damaged while nobody looked", async () => {
    const [app] = (await leadDatabases(place, "app.db")) as [LeadDatabase];
    fill(app);
    const lead = await Lead.open(place, [app]);
    const wire = await Wire.open(lead.url);
    place.closing(() => wire.close());
    const one = new Follower(place, "one");
    one.client.follow(wire.url);
    await caughtUp(app, await one.start("app.db"));
    await one.leave("app.db");
    const file = openSync(one.path("app.db"), "r+");
    writeSync(file, "rubbish", 4096 * 1000);
    closeSync(file);
    const bytes = wire.downBytes;
    const replica = await one.open("app.db");
    expect(replica.position).toBeUndefined();
    await caughtUp(app, replica);
    expect(replica.checksum).toBe(app.feed.checksum);
    expect(wire.downBytes - bytes).toBeLessThan(50_000);
    expect(one.read("app.db", "pragma integrity_check")).toBe("ok");
  });

  it("follows when a replica says that it is where the primary is, with other content", async () => {
    const [app] = (await leadDatabases(place, "app.db")) as [LeadDatabase];
    const pictures = countPictures(app);
    const lead = await Lead.open(place, [app]);
    const one = new Follower(place, "one");
    one.client.follow(lead.url);
    await caughtUp(app, await one.start("app.db"));
    await one.leave("app.db");
    const replica = await Replica.open(one.path("app.db"));
    place.closing(() => replica.close());
    Object.defineProperty(replica, "checksum", { get: () => 1n });
    const attachment = one.client.attach("app.db", replica);
    await until("compared", () => pictures.count === 2 && attachment.isJoined);
    await attachment.detach();
    expect(one.problems).toEqual([]);
  });

  it("puts commits that the primary never had into the quarantine", async () => {
    const file = path.join(place.dir, "lead", "app.db");
    let app = await LeadDatabase.open(file, "app.db");
    const lead = await Lead.open(place, [app]);
    const one = new Follower(place, "one");
    one.client.follow(lead.url);
    let replica = await one.start("app.db");
    app.write();
    await app.seal();
    await caughtUp(app, replica);
    await until("placed", () => replica.record?.txid === app.record!.txid);
    await one.leave("app.db");

    // This node was primary for a moment, and what it committed got nowhere.
    const own = await LeadDatabase.open(one.path("app.db"), "app.db");
    own.app.exec("insert into t (v) values ('lost')");
    own.database.captureNow();
    await own.close();
    lead.published.remove("app.db");
    while (app.epoch <= own.epoch) {
      await app.close();
      app = await LeadDatabase.open(file, "app.db");
    }
    const last = app;
    place.closing(() => last.close());
    // The new primary has committed nothing: its position is below what this node had.
    lead.published.add(app);
    replica = await one.open("app.db");
    expect(replica.position).toBeGreaterThan(app.feed.position);
    await until("the same", () => replica.checksum === app.feed.checksum && replica.epoch === app.epoch);
    app.write();
    await caughtUp(app, replica);
    expect(replica.checksum).toBe(app.feed.checksum);
    expect(one.read("app.db", "select count(*) from t where v = 'lost'")).toBe(0);
    expect(readdirSync(path.join(one.dir, ".app.db-sluice", "quarantine"))).not.toEqual([]);
  });

  it("begins with the log's records where there is a store, and goes on without it", async () => {
    const [app] = (await leadDatabases(place, "app.db")) as [LeadDatabase];
    const lead = await Lead.open(place, [app]);
    const asked: string[] = [];
    const one = new Follower(place, "one", {
      placeRecords: async (name) => {
        asked.push(name);
      },
    });
    one.client.follow(lead.url);
    let replica = await one.start("app.db");
    await app.seal();
    await caughtUp(app, replica);
    await one.leave("app.db");
    app.write();
    await app.seal();
    // The WAL began anew: the feed no longer goes back to where the replica is.
    Object.defineProperty(app.feed, "has", { value: (position: bigint) => position === app.feed.position });
    replica = await one.open("app.db");
    await caughtUp(app, replica);
    expect(asked).toEqual(["app.db"]);
    expect(replica.checksum).toBe(app.feed.checksum);
  });

  it("doesn't hold up the primary's writers or other replicas, and waits for its turn", async () => {
    const all = await leadDatabases(place, "a.db", "b.db", "c.db", "d.db");
    for (const one of all) fill(one);
    const lead = await Lead.open(place, all);
    const slow = new Follower(place, "slow");
    slow.client.follow(lead.url);
    let most = 0;
    const copies = Promise.all(all.map(({ name }) => slow.start(name)));
    let isDone = false;
    const watched = copies.finally(() => (isDone = true));
    let writes = 0;
    await until("copied", () => {
      most = Math.max(most, lead.server.sources.open);
      all[writes++ % all.length]!.write();
      return isDone;
    });
    const replicas = await watched;
    expect(most).toBe(2);
    expect(writes).toBeGreaterThan(3);
    for (const [i, one] of all.entries()) await caughtUp(one, replicas[i]!);
    await until("released", () => lead.server.sources.open === 0);
  });

  it("is broken off when the picture is, and begins again", async () => {
    const [app] = (await leadDatabases(place, "app.db")) as [LeadDatabase];
    fill(app);
    const abort = new AbortController();
    const real = app.resyncSource.bind(app);
    let pictures = 0;
    Object.defineProperty(app, "resyncSource", {
      value: async (): Promise<ResyncSource> => {
        const source = await real();
        if (++pictures > 1) return source;
        return {
          ...source,
          signal: abort.signal,
          read: async (numbers) => {
            abort.abort(new Error("it took too long"));
            return source.read(numbers);
          },
        };
      },
    });
    const lead = await Lead.open(place, [app]);
    const one = new Follower(place, "one");
    one.client.follow(lead.url);
    await expect(one.start("app.db")).rejects.toMatchObject({ code: "SLU-8213" });
    await caughtUp(app, await one.start("app.db"));
    expect(readdirSync(one.dir).filter((name) => name.endsWith(".seeding"))).toEqual([]);
  });
});

describe("pictures for comparisons", () => {
  function database(name: string, log: string[]): PublishedDatabase {
    const resyncSource = async (): Promise<ResyncSource> => {
      log.push(`open ${name}`);
      return { signal: new AbortController().signal, release: () => void log.push(`release ${name}`) } as ResyncSource;
    };
    return { name, resyncSource } as PublishedDatabase;
  }

  it("are shared, bounded, and lent in turn", async () => {
    const log: string[] = [];
    const [a, b, c] = [database("a", log), database("b", log), database("c", log)] as const;
    const sources = new ResyncSources(2);
    const never = new AbortController().signal;
    const [a1, a2, b1] = await Promise.all([sources.lend(a, never), sources.lend(a, never), sources.lend(b, never)]);
    expect(log).toEqual(["open a", "open b"]);
    const abort = new AbortController();
    const stopped = sources.lend(c, abort.signal);
    const waiting = sources.lend(c, never);
    abort.abort(new Error("stopped"));
    await expect(stopped).rejects.toThrow("stopped");
    a1.release();
    a1.release();
    expect(sources.open).toBe(2);
    a2.release();
    const c1 = await waiting;
    expect(log).toEqual(["open a", "open b", "release a", "open c"]);
    b1.release();
    c1.release();
    await until("released", () => sources.open === 0 && log.length === 6);
  });

  it("that can't be made are refused, and make room for others", async () => {
    const log: string[] = [];
    const sources = new ResyncSources(1);
    const never = new AbortController().signal;
    const broken = { name: "x", resyncSource: () => Promise.reject(new Error("no")) } as unknown as PublishedDatabase;
    await expect(sources.lend(broken, never)).rejects.toThrow("no");
    (await sources.lend(database("a", log), never)).release();
    expect(log[0]).toBe("open a");
  });
});

it("a replica opens a copied file as what it is", async () => {
  const [app] = (await leadDatabases(place, "app.db")) as [LeadDatabase];
  app.write(500, 50);
  await app.seal();
  app.write(500, 5);
  const lead = await Lead.open(place, [app]);
  const one = new Follower(place, "one");
  one.client.follow(lead.url);
  const replica = await one.start("app.db");
  expect(replica.position).toBeDefined();
  expect(replica.record?.txid).toBeGreaterThan(0);
  expect(replica.epoch).toBe(app.epoch);
  expect(statSync(one.path("app.db")).mode & 0o777).toBe(0o644 & ~process.umask());
  const copy = new Sqlite(one.path("app.db"), { readonly: true });
  expect(copy.pragma("integrity_check", { simple: true })).toBe("ok");
  copy.close();
});

import { execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync } from "node:fs";
import { createInterface, type Interface } from "node:readline";
import { fileURLToPath } from "node:url";
import Sqlite from "better-sqlite3";
import { sqliteEnvironment, type SqliteVersion } from "../peers/peers.ts";
import { type RunningApp, track } from "./apps.ts";
import { killedAtWrite } from "./faults.ts";
import { LiveReplica } from "./live-replica.ts";
import { merged, type PageSet, Source } from "./page-sets.ts";
import { random } from "./random.ts";

const schema = `
create table item(id integer primary key, a integer, body blob);
create index by_a on item(a);
insert into item values(1, 1, zeroblob(100));`;

/** A snapshot that some connection keeps. */
interface Pin {
  readonly db: Sqlite.Database;
  readonly bytes: Buffer;
}

/**
 * One database written by SQLite, and the same commits applied to a copy: the two must be the same for every reader,
 * whatever else happens to the copy. `step` does something at random; `check` compares.
 */
export class ReplicaModel {
  readonly source: Source;
  readonly path: string;
  readonly counts: Record<string, number> = {};
  readonly #random: (below: number) => number;
  readonly #readers: PagesReader[];
  readonly #pins: Pin[] = [];
  readonly #lives: LiveReplica[] = [];
  #replica!: LiveReplica;
  /** A connection that stays. */
  #reader!: Sqlite.Database;
  /** What readers must find. */
  #expected: Buffer;

  static async begin(
    directory: (file: string) => string,
    seed: number,
    pageSize: number,
    versions: readonly SqliteVersion[],
  ): Promise<ReplicaModel> {
    const model = new ReplicaModel(directory, seed, pageSize, versions);
    await model.#open();
    model.#reader = new Sqlite(model.path);
    return model;
  }

  private constructor(
    directory: (file: string) => string,
    seed: number,
    pageSize: number,
    versions: readonly SqliteVersion[],
  ) {
    const next = random(seed);
    this.#random = (below) => Math.floor(next() * below);
    const autoVacuum = ["none", "full", "incremental"][this.#random(3)]!;
    this.source = new Source(directory("source.db"), pageSize, schema, autoVacuum);
    this.path = directory("replica.db");
    copyFileSync(this.source.path, this.path);
    this.#expected = this.source.bytes;
    this.#readers = versions.map((version) => new PagesReader(this.path, version));
  }

  async step(): Promise<void> {
    const steps: [number, string, () => Promise<void> | void][] = [
      [12, "applied", () => this.#commit((set) => this.#replica.apply(set, 1 + this.#random(50)))],
      [3, "aborted", () => this.#commit((set) => this.#abortFirst(set))],
      [6, "killed", () => this.#commit((set) => this.#killedFirst(set))],
      [2, "pinned", () => this.#pin()],
      [2, "unpinned", () => this.#unpin()],
      [3, "backfilled", () => this.#backfill()],
      [2, "restarted", () => this.#restart()],
      [1, "killed at a restart", () => this.#killedAtRestart()],
      [1, "reopened", () => this.#reopen()],
      [1, "filled an index block", () => this.#fill()],
      [2, "written by SQLite", () => this.#writtenBySqlite()],
      [5, "read", () => this.#read()],
    ];
    let at = this.#random(steps.reduce((sum, [weight]) => sum + weight, 0));
    for (const [weight, name, run] of steps) {
      at -= weight;
      if (at >= 0) continue;
      await run();
      this.counts[name] = (this.counts[name] ?? 0) + 1;
      return;
    }
  }

  /** Every SQLite reads the same, and what was pinned stays what it was. */
  async check(): Promise<void> {
    this.#read();
    for (const pin of this.#pins) this.#compare(pin.db, pin.bytes, "a pinned snapshot");
    this.#recover();
    const digest = masked(this.#expected);
    for (const reader of this.#readers) {
      const found = await reader.ask(this.#random(3) === 0 ? "new" : "same");
      if (found !== `${digest} ok`) throw new Error(`SQLite ${reader.version} reads ${found}, not ${digest}`);
    }
  }

  async end(): Promise<void> {
    for (const reader of this.#readers) await reader.end();
    for (const { db } of this.#pins) db.close();
    this.#reader?.close();
    this.source.close();
    for (const life of this.#lives) life.close();
  }

  async #open(): Promise<void> {
    this.#replica = await LiveReplica.open(this.path);
    this.#replica.isPreparing = this.#random(2) === 0;
    this.#lives.push(this.#replica);
  }

  async #reopen(): Promise<void> {
    this.#replica.kill();
    await this.#open();
  }

  /** Some commits of SQLite's, applied one by one or as one step. */
  async #commit(apply: (set: PageSet) => Promise<void>): Promise<void> {
    const commits: PageSet[] = [];
    for (let i = 0; i <= this.#random(3); i++) {
      this.source.db.exec(this.#sql());
      commits.push(...this.source.take());
    }
    const sets = this.#random(3) === 0 ? [merged(commits, this.source.pageSize)] : commits;
    for (const set of sets) if (set.numbers.length > 0) await apply(set);
    this.#expected = this.source.bytes;
  }

  #sql(): string {
    const r = this.#random;
    const body = (): string => `zeroblob(${r(4) === 0 ? r(this.source.pageSize * 3) : r(300)})`;
    const some = `id % ${2 + r(9)} = ${r(3)}`;
    const kind = r(20);
    if (kind < 9) {
      return `with i(n) as (select 1 union all select n + 1 from i where n < ${1 + r(40)})
        insert into item(a, body) select ${r(1e6)} + n, ${body()} from i;`;
    }
    if (kind < 13) return `update item set a = a + ${r(1000)}, body = ${body()} where ${some};`;
    if (kind < 16) return `delete from item where ${some};`;
    if (kind === 16) return "vacuum;";
    if (kind === 17) return `pragma incremental_vacuum(${r(5)}); pragma user_version = ${r(1e6)};`;
    if (kind === 18) return `create table if not exists t${r(3)}(x); drop table if exists t${r(3)};`;
    return `begin; update item set a = ${r(1e6)}; savepoint s; delete from item; rollback to s; commit;`;
  }

  async #abortFirst(set: PageSet): Promise<void> {
    await this.#replica.append(set, 1 + this.#random(20), this.#random(set.numbers.length + 1));
    this.#replica.abort();
    await this.#replica.apply(set);
  }

  /** Killed at some write of a commit, perhaps several times: nothing is shown of it before all is. */
  async #killedFirst(set: PageSet): Promise<void> {
    const before = this.#reader.serialize();
    for (let life = 0; life <= this.#random(3); life++) {
      const { frame } = this.#replica.capture;
      const chunk = 1 + this.#random(20);
      const n = 1 + this.#random(2 * set.numbers.length + 6);
      await killedAtWrite(n, () => this.#replica.apply(set, chunk));
      await this.#reopen();
      if (this.#replica.capture.frame > frame) return;
      this.#compare(this.#reader, before, "the state before the change");
    }
    await this.#replica.apply(set);
  }

  /** Commits that change nothing, until an index block is nearly full. */
  async #fill(): Promise<void> {
    const { pageSize } = this.source;
    if (pageSize > 4096) return;
    const { bytes } = this.source;
    const pages = Math.min(40, bytes.length / pageSize);
    const numbers = Uint32Array.from({ length: pages }, (_, i) => i + 1);
    const set = { numbers, content: bytes.subarray(0, pages * pageSize), pageCount: bytes.length / pageSize };
    const room = (): number => (4096 + 4062 - this.#replica.capture.frame) % 4096;
    while (room() > 2 * pages) await this.#replica.apply(set);
  }

  async #backfill(): Promise<void> {
    const { capture, backfill } = this.#replica;
    const pending = capture.frame - backfill.backfilled;
    await this.#replica.merge(backfill.backfilled + this.#random(pending + 1));
  }

  async #restart(): Promise<void> {
    const outcome = await this.#replica.restart();
    if (outcome === "restarted") this.counts["restarts done"] = (this.counts["restarts done"] ?? 0) + 1;
  }

  async #killedAtRestart(): Promise<void> {
    await killedAtWrite(1 + this.#random(8), () => this.#replica.restart());
    await this.#reopen();
  }

  /** The gate opens and closes again: SQLite goes on where Sluice ended, and the other way round. */
  async #writtenBySqlite(): Promise<void> {
    this.#replica.locks.openGate();
    const own = new Sqlite(this.path);
    try {
      const sql = this.#sql();
      own.exec(sql);
      this.source.db.exec(sql);
    } finally {
      own.close();
    }
    this.source.take();
    await this.#reopen();
    this.#expected = this.source.bytes;
    this.#compareRows();
    // The two are the same but for numbers in the header, which a connection counts up once.
    const set = changes(this.#reader.serialize(), this.#expected, this.source.pageSize);
    if (set.numbers.length > 0) await this.#replica.apply(set);
  }

  #compareRows(): void {
    const query = "select id, a, hex(body) from item union all select 0, name, sql from sqlite_schema order by 1, 2";
    const rows = (db: Sqlite.Database): unknown => db.prepare(query).raw().all();
    if (JSON.stringify(rows(this.#reader)) !== JSON.stringify(rows(this.source.db))) {
      throw new Error("SQLite found other rows than it should behind what was applied");
    }
    const integrity = this.#reader.pragma("integrity_check", { simple: true });
    if (integrity !== "ok") throw new Error(String(integrity));
  }

  #pin(): void {
    if (this.#pins.length === 4) return;
    const db = new Sqlite(this.path, { readonly: this.#random(2) === 0 });
    db.pragma(`mmap_size = ${this.#random(2) * 2 ** 26}`);
    db.exec("begin; select count(*) from sqlite_schema;");
    this.#pins.push({ db, bytes: this.#expected });
    db.prepare("select count(*) from item").get();
  }

  #unpin(): void {
    const [pin] = this.#pins.splice(this.#random(this.#pins.length || 1), 1);
    if (pin === undefined) return;
    this.#compare(pin.db, pin.bytes, "a pinned snapshot");
    pin.db.close();
  }

  #read(): void {
    this.#compare(this.#reader, this.#expected, "the database");
    const db = new Sqlite(this.path);
    try {
      db.pragma(`mmap_size = ${this.#random(2) * 2 ** 26}`);
      this.#compare(db, this.#expected, "a new connection");
    } finally {
      db.close();
    }
  }

  /** What SQLite makes of file and WAL alone, after a crash of everybody. Copied by others: closing drops locks (fcntl(2)). */
  #recover(): void {
    const copy = `${this.path}-copy`;
    execFileSync("rm", ["-f", `${copy}-wal`, `${copy}-shm`]);
    for (const suffix of ["", "-wal"]) execFileSync("cp", [this.path + suffix, copy + suffix]);
    const db = new Sqlite(copy);
    try {
      this.#compare(db, this.#expected, "what is recovered");
    } finally {
      db.close();
    }
  }

  #compare(db: Sqlite.Database, bytes: Buffer, what: string): void {
    const found = db.serialize();
    if (!found.equals(bytes))
      throw new Error(`${what} is different: ${difference(found, bytes, this.source.pageSize)}`);
    const integrity = db.pragma("integrity_check", { simple: true });
    if (integrity !== "ok") throw new Error(`${what}: ${String(integrity)}`);
  }
}

/** The pages of `to` that are not so in `from`. */
function changes(from: Buffer, to: Buffer, pageSize: number): PageSet {
  const numbers: number[] = [];
  const content: Buffer[] = [];
  for (let at = 0; at < to.length; at += pageSize) {
    const page = to.subarray(at, at + pageSize);
    if (from.subarray(at, at + pageSize).equals(page)) continue;
    numbers.push(at / pageSize + 1);
    content.push(page);
  }
  return { numbers: Uint32Array.from(numbers), content: Buffer.concat(content), pageCount: to.length / pageSize };
}

function difference(a: Buffer, b: Buffer, pageSize: number): string {
  const { numbers } = changes(a, b, pageSize);
  return `${a.length / pageSize} and ${b.length / pageSize} pages, not the same are ${numbers.slice(0, 10).join(" ")}`;
}

/** The digest that `pages.py` prints. */
function masked(bytes: Buffer): string {
  const copy = Buffer.from(bytes);
  for (const [first, last] of [
    [18, 20],
    [24, 28],
    [40, 44],
    [92, 100],
  ] as const) {
    copy.fill(0, first, last);
  }
  return createHash("sha256").update(copy).digest("hex");
}

/** Another SQLite in another process, that reads the database page for page when it is asked to. */
class PagesReader {
  readonly version: SqliteVersion;
  readonly #app: RunningApp;
  readonly #lines: Interface;
  readonly #next: AsyncIterator<string>;

  constructor(path: string, version: SqliteVersion) {
    this.version = version;
    const script = fileURLToPath(new URL("../apps/pages.py", import.meta.url));
    const child = spawn("python3", [script, path], { env: { ...process.env, ...sqliteEnvironment(version) } });
    this.#app = track(child);
    this.#lines = createInterface({ input: child.stdout });
    this.#next = this.#lines[Symbol.asyncIterator]();
  }

  async ask(line: "new" | "same"): Promise<string> {
    this.#app.process.stdin!.write(`${line}\n`);
    const { value, done } = await this.#next.next();
    if (done === true) throw new Error(`SQLite ${this.version} ended: ${(await this.#app.ended).output}`);
    return value;
  }

  async end(): Promise<void> {
    this.#app.process.stdin!.end();
    await this.#app.ended;
  }
}

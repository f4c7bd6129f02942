import { rmSync } from "node:fs";
import path from "node:path";
import { Command } from "commander";
import { databasesOf } from "../../admin/report.ts";
import { extractQuarantined, type Extracted } from "../../cluster/quarantine-extract.ts";
import { type Shown, type ShownTable, showQuarantined } from "../../cluster/quarantine-show.ts";
import { stateDirOf } from "../../database/database.ts";
import { baseOf } from "../../cluster/quarantine-keep.ts";
import { type Quarantined, quarantined } from "../../database/quarantined.ts";
import { isSluiceError, SluiceError } from "../../errors/error.ts";
import { logContext } from "../../log/context.ts";
import { releaseState } from "../../log/kept-states.ts";
import { formatTxid } from "../../log/layout.ts";
import { formatPosition } from "../../ltx/position.ts";
import { formatBytes, table } from "../output.ts";
import { progressBar } from "../progress.ts";
import { stopSignal } from "../stop-signal.ts";
import { configOption, jsonOption } from "../options.ts";
import { findTarget, readConfig, type Target } from "../target.ts";

interface Flags {
  readonly db?: string;
  readonly config?: string;
  readonly json?: boolean;
  readonly o?: string;
  readonly force?: boolean;
  readonly scratchDir?: string;
}

/** An entry and the database whose history it left. */
interface Found {
  readonly db: string;
  readonly entry: Quarantined;
}

export function command(): Command {
  const quarantine = new Command("quarantine").description(
    "Commits that left a database's history: after a failover that lost them, a power loss, or --adopt.",
  );
  const below = (name: string, summary: string): Command =>
    new Command(name)
      .description(summary)
      .option("--db <path>", "only this database; default: those of the configuration")
      .addOption(configOption())
      .addOption(jsonOption());
  quarantine.addCommand(
    below("list", "Lists what is in the quarantine.").action((flags: Flags) => list(flags)),
    { isDefault: true },
  );
  quarantine.addCommand(
    below("show", "Shows which tables the pages belong to, and which rows differ.")
      .argument("<id>", "as `list` shows it, or its beginning")
      .option("--scratch-dir <dir>", "where there is room for two copies of the database (default: the system's)")
      .action((id: string, flags: Flags) => show(id, flags)),
  );
  quarantine.addCommand(
    below("extract", "Puts the database together that was left, as a file of its own.")
      .argument("<id>", "as `list` shows it, or its beginning")
      .requiredOption("-o <path>", "where the database goes")
      .option("--force", "replace a file that is there")
      .action((id: string, flags: Flags) => extract(id, flags)),
  );
  quarantine.addCommand(
    below("remove", "Deletes an entry for good.")
      .argument("<id>", "as `list` shows it; its beginning is not enough")
      .action((id: string, flags: Flags) => remove(id, flags)),
  );
  return quarantine.addHelpText(
    "after",
    `
Examples:
  $ sluice quarantine
  $ sluice quarantine show 0000000300000007
  $ sluice quarantine extract 0000000300000007 -o lost.db
  $ sluice quarantine remove 0000000300000007-1767225600000`,
  );
}

function list(flags: Flags): void {
  const found = all(flags);
  if (flags.json) return console.log(JSON.stringify(found.map(asJson)));
  if (found.length === 0) return console.log("The quarantine is empty.");
  const cells = found.map(({ db, entry }) => [
    entry.id,
    db,
    new Date(entry.atMs).toISOString(),
    what(entry),
    entry.common === undefined ? "-" : formatPosition(entry.common),
    entry.own === undefined ? "-" : formatPosition(entry.own),
    formatBytes(entry.sizeBytes),
  ]);
  console.log(table(["id", "database", "when", "what", "last common", "own", "size"], cells));
}

async function show(id: string, flags: Flags): Promise<void> {
  const found = pick(id, flags);
  const target = await targetOf(found.db, flags);
  using stop = stopSignal();
  try {
    const sources = { ...source(target), database: found.db, signal: stop.signal };
    const shown = await showQuarantined(found.entry, sources, flags.scratchDir);
    if (flags.json) {
      const { extracted, ...rest } = shown;
      console.log(JSON.stringify({ ...asJson(found), ...rest, ...built(extracted) }));
    } else describe(found, shown);
  } finally {
    await target?.store.close();
  }
}

async function extract(id: string, flags: Flags): Promise<void> {
  const { db, entry } = pick(id, flags);
  const target = await targetOf(db, flags);
  const bar = progressBar(!flags.json);
  using stop = stopSignal();
  try {
    const extracted = await extractQuarantined({
      ...source(target),
      entry,
      database: db,
      to: path.resolve(flags.o!),
      force: flags.force ?? false,
      onProgress: bar.show,
      signal: stop.signal,
    }).finally(() => bar.end());
    if (flags.json) console.log(JSON.stringify({ id: entry.id, ...built(extracted) }));
    else {
      console.log(`${extracted.path}: ${formatBytes(extracted.sizeBytes)}`);
      for (const sentence of sentences(extracted)) console.log(`  ${sentence}`);
    }
  } finally {
    await target?.store.close();
  }
}

async function remove(id: string, flags: Flags): Promise<void> {
  const { db, entry } = pick(id, flags);
  if (entry.id !== id)
    throw new SluiceError("SLU-1010", `${id} is the beginning of an id: to remove it, write ${entry.id}`);
  rmSync(entry.path, { recursive: true });
  const txid = baseOf(entry);
  const target = await targetOf(db, flags);
  try {
    // Otherwise the log keeps it for a while longer.
    if (target !== undefined && txid !== undefined) {
      await releaseState(logContext(target.store, target), txid, entry.id).catch(() => undefined);
    }
  } finally {
    await target?.store.close();
  }
  if (flags.json) console.log(JSON.stringify({ id, database: db, removed: true }));
  else console.log(`${id}: removed (${what(entry)} of ${db})`);
}

function all({ db, config }: Flags): Found[] {
  const paths =
    db === undefined
      ? readConfig(config).dbs.flatMap((entry) => (entry.kind === "file" ? [entry.path] : databasesOf(entry)))
      : [path.resolve(db)];
  return paths.flatMap((file) => quarantined(stateDirOf(file)).map((entry) => ({ db: file, entry })));
}

/** The entry with this id, or the only one whose id begins so. Throws SLU-1010. */
function pick(id: string, flags: Flags): Found {
  const found = all(flags);
  const exact = found.filter(({ entry }) => entry.id === id);
  const fitting = exact.length > 0 ? exact : found.filter(({ entry }) => id !== "" && entry.id.startsWith(id));
  if (fitting.length === 1) return fitting[0]!;
  if (fitting.length === 0) throw new SluiceError("SLU-1010", `nothing in the quarantine has the id ${id}`);
  const several = fitting.map(({ db, entry }) => `${entry.id} of ${db}`).join(", ");
  throw new SluiceError("SLU-1010", `${id} may be ${several}`);
}

/** The log of a database, where a configuration has it. */
async function targetOf(db: string, flags: Flags): Promise<Target | undefined> {
  try {
    return await findTarget(db, flags.config);
  } catch (error) {
    const isUnknown = isSluiceError(error) && (error.code === "SLU-1001" || error.code === "SLU-1003");
    if (isUnknown && flags.config === undefined) return undefined;
    throw error;
  }
}

function source(target: Target | undefined): { readonly log?: Target } {
  return target === undefined ? {} : { log: target };
}

function what({ kind, files, problem }: Quarantined): string {
  if (problem !== undefined) return `unreadable: ${problem}`;
  if (kind === "file") return "whole file";
  const pages = files.reduce((sum, file) => sum + file.pages.length, 0);
  const counted = `${pages} page${pages === 1 ? "" : "s"}`;
  return kind === "pages" ? counted : `${counted} in ${files.length} unsent batches`;
}

function asJson({ db, entry }: Found): Record<string, unknown> {
  const { id, kind, path: at, atMs, sizeBytes, common, own, files, problem } = entry;
  return {
    id,
    database: db,
    kind,
    path: at,
    when: new Date(atMs).toISOString(),
    pages: kind === "file" ? undefined : files.reduce((sum, file) => sum + file.pages.length, 0),
    common: common === undefined ? undefined : formatPosition(common),
    own: own === undefined ? undefined : formatPosition(own),
    sizeBytes,
    problem,
  };
}

function built({ path: file, sizeBytes, base, baseProblem, exact, problems }: Extracted): Record<string, unknown> {
  const over =
    base === undefined ? undefined : base.kind === "log" ? { kind: "log", txid: formatTxid(base.txid) } : base;
  return { file, sizeBytes, base: over, baseProblem, exact, integrity: problems.length === 0 ? "ok" : problems };
}

/** How the database was put together, and what it's worth. */
function sentences({ base, baseProblem, exact, problems }: Extracted): string[] {
  const said: string[] = [];
  if (base?.kind === "log") said.push(`laid over the log's state after TXID ${formatTxid(base.txid)}`);
  if (base?.kind === "now")
    said.push("laid over the database as it is NOW: rows on other pages may be newer than the quarantined ones");
  if (baseProblem !== undefined) said.push(`not used: ${baseProblem}`);
  if (exact === true) said.push("it is exactly the state that was left: the checksum is equal");
  if (exact === false) said.push("it is NOT exactly the state that was left: the checksum differs");
  said.push(problems.length === 0 ? "integrity ok" : `integrity_check found: ${problems.join("; ")}`);
  return said;
}

function describe({ db, entry }: Found, { extracted, tables, otherPages, comparedWithNow }: Shown): void {
  const position = (p: bigint | undefined): string => (p === undefined ? "-" : formatPosition(p));
  console.log(`${entry.id}: ${what(entry)} of ${db}, ${formatBytes(entry.sizeBytes)}`);
  console.log(`  put there ${new Date(entry.atMs).toISOString()}; last common position ${position(entry.common)}`);
  console.log(`  the state that was left: ${position(entry.own)}`);
  for (const sentence of sentences(extracted)) console.log(`  ${sentence}`);
  const cell = (count: number | undefined): string => (count === undefined ? "-" : String(count));
  const rows = tables.map(({ name, table: of, pages, written, removed, missing }: ShownTable) => [
    name === of ? name : `${name} (index of ${of})`,
    cell(pages),
    cell(written),
    cell(removed),
    cell(missing),
  ]);
  if (otherPages > 0) rows.push(["(no table: free or unreadable)", String(otherPages), "-", "-", "-"]);
  console.log(table(["table", "pages", "rows written", "rows removed", "rows not in the database now"], rows));
  if (!comparedWithNow) console.log(`${db} isn't there: rows were not compared with it.`);
}

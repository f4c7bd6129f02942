import path from "node:path";
import { Command } from "commander";
import {
  databasesOf,
  report,
  reportHere,
  type Report,
  type ReportedDatabase,
  type Wanted,
} from "../../admin/report.ts";
import type { DbConfig } from "../../config/config.ts";
import { formatTxid } from "../../log/layout.ts";
import { formatBytes, table } from "../output.ts";
import { configOption, jsonOption } from "../options.ts";
import { findTarget, openLogOf, optionalConfig } from "../target.ts";

export function command(): Command {
  return new Command("status")
    .description("Shows the databases of a running Sluice; without one, what this disk and the store say of them.")
    .argument("[db]", "one database; default: those of the configuration, or of every Sluice that runs here")
    .addOption(configOption())
    .addOption(jsonOption())
    .addHelpText("after", "\nExamples:\n  $ sluice status\n  $ sluice status app.db --json")
    .action(async (db: string | undefined, { config, json }: { config?: string; json?: boolean }) => {
      const found = await reportOf(db, config);
      console.log(json ? JSON.stringify(found) : describe(found));
    });
}

/** A database may be named that no configuration has: its process, or its state on disk, is enough. */
function wantedOne(db: string, config: string | undefined): Wanted {
  return { path: path.resolve(db), openLog: optionalConfig(config) && (() => findTarget(db, config)) };
}

async function reportOf(db: string | undefined, file: string | undefined): Promise<Report> {
  if (db !== undefined) return report([wantedOne(db, file)]);
  const config = optionalConfig(file);
  return config === undefined ? reportHere() : report(config.dbs.flatMap(wantedOf));
}

function wantedOf(entry: DbConfig): Wanted[] {
  return (entry.kind === "file" ? [entry.path] : databasesOf(entry)).map((found) => ({
    path: found,
    openLog: () => openLogOf(entry, found),
  }));
}

function describe({ processes, databases }: Report): string {
  const lines = processes.map(
    ({ node, role, pid, version, startedAt }) =>
      `${node}: ${role}, process ${pid} since ${startedAt}, Sluice ${version}`,
  );
  for (const { primary, lagMs, lease, replicas = [] } of processes) {
    if (lease === undefined) continue;
    const until = lease.lapsesInMs === undefined ? "" : `, for ${(lease.lapsesInMs / 1000).toFixed(1)} s`;
    lines.push(`  primary: ${primary === undefined ? "none" : `${primary.name} (${primary.advertise})`}${until}`);
    lines.push(`  lease: ${lease.place}`);
    if (lagMs !== undefined && lagMs > 0) lines.push(`  behind the primary: ${(lagMs / 1000).toFixed(1)} s`);
    for (const { name, advertise, lagMs: behind, isCandidate } of replicas)
      lines.push(`  replica ${name} (${advertise}): ${behind} ms behind${isCandidate ? "" : ", no candidate"}`);
  }
  if (lines.length === 0) lines.push("Sluice isn't running here.");
  lines.push(table(HEADER, databases.map(cells)));
  for (const { path: file, error } of databases)
    if (error)
      lines.push(`${file}: ${error.code ?? ""} ${error.message}`, ...(error.hint ? [`  → ${error.hint}`] : []));
  for (const { path: file, quarantined } of databases)
    if (quarantined.entries > 0)
      lines.push(
        `${file}: ${formatBytes(quarantined.bytes)} in the quarantine: commits that left its history; \`sluice quarantine\` shows them`,
      );
  return lines.join("\n");
}

const HEADER = ["database", "state", "position", "size", "wal", "store has", "behind", "store"];

function cells(db: ReportedDatabase): string[] {
  const { storeLagMs, inStore, confirmed } = db;
  const stored =
    inStore === undefined
      ? confirmed && `${formatTxid(confirmed.txid)} ${confirmed.at}`
      : inStore.files === 0
        ? "nothing"
        : `${formatTxid(inStore.txid)} ${inStore.writtenAt ?? ""}`;
  return [
    db.path,
    db.state,
    db.position ?? "-",
    db.sizeBytes === undefined ? "-" : formatBytes(db.sizeBytes),
    db.walBytes === undefined ? "-" : formatBytes(db.walBytes),
    stored ?? "-",
    storeLagMs === undefined ? "-" : `${(storeLagMs / 1000).toFixed(1)} s`,
    db.store,
  ];
}

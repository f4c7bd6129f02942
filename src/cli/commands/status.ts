import path from "node:path";
import { Command } from "commander";
import { ask } from "../../admin/client.ts";
import { readOwner } from "../../admin/owner.ts";
import type { DatabaseStatus, NodeStatus } from "../../cluster/status.ts";
import { stateDirOf } from "../../database/database.ts";
import { peekState } from "../../database/state.ts";
import { formatTxid } from "../../log/layout.ts";
import { formatPosition } from "../../ltx/position.ts";
import { redact } from "../../store/open.ts";
import { formatBytes, table } from "../output.ts";
import { configOption, jsonOption, readConfig } from "../target.ts";

export function command(): Command {
  return new Command("status")
    .description("Shows the databases of a running Sluice; without one, what this disk says of them.")
    .argument("[db]", "one database; default: those of the configuration")
    .addOption(configOption())
    .addOption(jsonOption())
    .addHelpText("after", "\nExamples:\n  $ sluice status\n  $ sluice status app.db --json")
    .action(async (db: string | undefined, { config, json }: { config?: string; json?: boolean }) => {
      const status = await gather(db, config);
      if (json) return console.log(JSON.stringify(status));
      console.log(status.running === undefined ? "Sluice isn't running here." : describe(status.running));
      console.log(table(HEADER, status.databases.map(cells)));
      for (const { path: file, error } of status.databases)
        if (error) console.log(`${file}: ${error.code ?? ""} ${error.message}\n  → ${error.hint}`);
    });
}

interface Status {
  readonly running: Omit<NodeStatus, "databases"> | undefined;
  readonly databases: readonly DatabaseStatus[];
}

async function gather(db: string | undefined, config: string | undefined): Promise<Status> {
  const entries = db === undefined ? readConfig(config).dbs : [];
  const files = db === undefined ? entries.flatMap((entry) => (entry.kind === "file" ? [entry.path] : [])) : [db];
  const owned = files.map((file) => path.resolve(file)).find((file) => readOwner(file) !== undefined);
  if (owned !== undefined) {
    const { databases, ...running } = await ask<NodeStatus>(owned, "GET", "/v1/status");
    const wanted = db === undefined ? databases : databases.filter((one) => one.path === path.resolve(db));
    return { running, databases: wanted };
  }
  const storeOf = new Map(entries.flatMap((entry) => (entry.kind === "file" ? [[entry.path, entry.store.url]] : [])));
  return { running: undefined, databases: files.map((file) => onDisk(path.resolve(file), storeOf.get(file))) };
}

/** What the state file remembers. */
function onDisk(file: string, store: string | undefined): DatabaseStatus {
  const state = peekState(stateDirOf(file));
  return {
    path: file,
    store: store === undefined ? "" : redact(store),
    state: "closed",
    error: undefined,
    position: state && formatPosition(state.sealedPosition),
    sizeBytes: undefined,
    walBytes: undefined,
    confirmed: state && {
      txid: state.confirmed.txid,
      position: formatPosition(state.confirmed.position),
      at: new Date(state.confirmed.timestampMs).toISOString(),
    },
    storeLagMs: undefined,
    frozen: state?.frozen.length,
  };
}

function describe({ node, role, pid, version }: Omit<NodeStatus, "databases">): string {
  return `${node}: ${role}, process ${pid}, Sluice ${version}`;
}

const HEADER = ["database", "state", "position", "size", "wal", "store has", "behind", "store"];

function cells(db: DatabaseStatus): string[] {
  const lag = db.storeLagMs;
  return [
    db.path,
    db.state,
    db.position ?? "-",
    db.sizeBytes === undefined ? "-" : formatBytes(db.sizeBytes),
    db.walBytes === undefined ? "-" : formatBytes(db.walBytes),
    db.confirmed === undefined ? "-" : `${formatTxid(db.confirmed.txid)} ${db.confirmed.at}`,
    lag === undefined ? "-" : `${(lag / 1000).toFixed(1)} s`,
    db.store,
  ];
}

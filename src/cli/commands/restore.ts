import { existsSync } from "node:fs";
import path from "node:path";
import { Command, Option } from "commander";
import { SluiceError, isSluiceError } from "../../errors/error.ts";
import { follow } from "../../log/follow.ts";
import { formatTxid } from "../../log/layout.ts";
import { planRestore, restore, type RestoreOptions } from "../../log/restore.ts";
import { formatPosition } from "../../ltx/position.ts";
import { formatBytes } from "../output.ts";
import { progressBar } from "../progress.ts";
import { stopSignal } from "../stop-signal.ts";
import { configOption, jsonOption, parse } from "../options.ts";
import { findTarget, type Target } from "../target.ts";

interface Flags {
  readonly o?: string;
  readonly txid?: number;
  readonly timestamp?: number;
  readonly ifDbNotExists?: boolean;
  readonly ifReplicaExists?: boolean;
  readonly dryRun?: boolean;
  readonly force?: boolean;
  readonly follow?: boolean;
  readonly followInterval?: number;
  readonly integrityCheck: "none" | "quick" | "full";
  readonly config?: string;
  readonly json?: boolean;
}

export function command(): Command {
  return new Command("restore")
    .description(
      "Restores a database. The file is verified before it's put in place, and never overwrites without --force.",
    )
    .argument("<db|url>", "a database of the configuration, or a store's URL")
    .option("-o <path>", "where to (default: the database's own path)")
    .addOption(new Option("--txid <hex>", "the state after this TXID").argParser(parse.txid).conflicts("timestamp"))
    .addOption(
      new Option(
        "--timestamp <time>",
        "the newest state at or before this time (RFC 3339), or so long ago (24h)",
      ).argParser(parse.time),
    )
    .option("--if-db-not-exists", "do nothing when there is a file already")
    .option("--if-replica-exists", "do nothing when there is no backup")
    .option("--dry-run", "only show what would be fetched")
    .option("--force", "replace a file that is there, once the new one is verified")
    .addOption(
      new Option("-f, --follow", "keep the file up to date until stopped").conflicts(["txid", "timestamp", "dryRun"]),
    )
    .option("--follow-interval <duration>", "how often to look (default: 1s)", parse.duration)
    .addOption(
      new Option("--integrity-check <kind>", "SQLite's own check of the restored file")
        .choices(["none", "quick", "full"])
        .default("quick"),
    )
    .addOption(configOption())
    .addOption(jsonOption())
    .addHelpText(
      "after",
      `
Examples:
  $ sluice restore app.db
  $ sluice restore -o yesterday.db --timestamp 24h s3://bucket/app
  $ sluice restore -o then.db --timestamp 2026-01-31T12:00:00Z s3://bucket/app
  $ sluice restore --if-db-not-exists --if-replica-exists app.db`,
    )
    .action(run);
}

async function run(given: string, flags: Flags): Promise<void> {
  const target = await findTarget(given, flags.config);
  const file = flags.o ?? target.db;
  if (file === undefined) throw new SluiceError("SLU-1000", "a URL needs -o PATH: where should the database go?");
  try {
    if (flags.ifDbNotExists && existsSync(file))
      return report(flags, { restored: false, path: file, why: "the file exists" });
    if (flags.dryRun) return await showPlan(target, flags);
    if (flags.follow) return await followUntilStopped(target, path.resolve(file), flags);
    await restoreOnce(target, path.resolve(file), flags);
  } catch (error) {
    if (!flags.ifReplicaExists || !isSluiceError(error, "SLU-4501")) throw error;
    report(flags, { restored: false, path: file, why: "there is no backup" });
  } finally {
    await target.store.close();
  }
}

function optionsFor({ store, prefix }: Target, file: string, flags: Flags): RestoreOptions {
  return {
    store,
    prefix,
    path: file,
    force: flags.force ?? false,
    integrityCheck: flags.integrityCheck,
    ...(flags.txid !== undefined && { txid: flags.txid }),
    ...(flags.timestamp !== undefined && { timestampMs: flags.timestamp }),
  };
}

async function restoreOnce(target: Target, file: string, flags: Flags): Promise<void> {
  const bar = progressBar(!flags.json);
  using stop = stopSignal();
  let keptBytes = 0;
  const options: RestoreOptions = {
    ...optionsFor(target, file, flags),
    onProgress: bar.show,
    onKept: (bytes) => (keptBytes = bytes),
    signal: stop.signal,
  };
  const restored = await restore(options).finally(() => {
    bar.end();
    if (keptBytes > 0)
      console.error(`${formatBytes(keptBytes)} stay beside ${file}: the same command goes on with them.`);
  });
  const { txid, position, timestampMs, sizeBytes, elapsedMs, fetchedBytes } = restored;
  report(flags, {
    restored: true,
    path: file,
    txid: formatTxid(txid),
    position: formatPosition(position),
    timestamp: new Date(timestampMs).toISOString(),
    sizeBytes,
    fetchedBytes,
    keptBytes: restored.keptBytes,
    elapsedMs,
  });
}

async function showPlan(target: Target, flags: Flags): Promise<void> {
  const plan = await planRestore(optionsFor(target, "", flags));
  if (flags.json) {
    const files = plan.files.map(({ key, sizeBytes }) => ({ key, sizeBytes }));
    console.log(JSON.stringify({ txid: formatTxid(plan.txid), sizeBytes: plan.sizeBytes, files }));
    return;
  }
  for (const { key, sizeBytes } of plan.files) console.log(`${key}  ${formatBytes(sizeBytes)}`);
  console.log(`TXID ${formatTxid(plan.txid)} from ${plan.files.length} files, ${formatBytes(plan.sizeBytes)}`);
}

async function followUntilStopped(target: Target, file: string, flags: Flags): Promise<void> {
  using stop = stopSignal();
  await follow({
    ...optionsFor(target, file, flags),
    intervalMs: flags.followInterval ?? 1000,
    signal: stop.signal,
    onState: ({ txid }) =>
      console.log(flags.json ? JSON.stringify({ txid: formatTxid(txid) }) : `TXID ${formatTxid(txid)}`),
    onProblem: (error) => console.error(error instanceof Error ? error.message : error),
  });
}

function report(flags: Flags, result: Record<string, unknown>): void {
  if (flags.json) console.log(JSON.stringify(result));
  else if (result["restored"] === false)
    console.log(`${String(result["path"])}: not restored, ${String(result["why"])}`);
  else {
    const { path: file, txid, timestamp, sizeBytes, elapsedMs } = result as Record<string, string & number>;
    console.log(
      `${file}: ${formatBytes(sizeBytes!)} as of ${timestamp} (TXID ${txid}), in ${(elapsedMs! / 1000).toFixed(1)} s`,
    );
  }
}

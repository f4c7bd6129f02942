import { Command, Option } from "commander";
import { liveState, settle } from "../../admin/live.ts";
import { noteVerified } from "../../cluster/verified.ts";
import { formatTxid } from "../../log/layout.ts";
import { verify } from "../../log/verify.ts";
import { formatPosition } from "../../ltx/position.ts";
import { formatBytes } from "../output.ts";
import { progressBar } from "../progress.ts";
import { stopSignal } from "../stop-signal.ts";
import { configOption, jsonOption } from "../options.ts";
import { findTarget, type Target } from "../target.ts";

interface Flags {
  readonly integrityCheck: "none" | "quick" | "full";
  readonly scratchDir?: string;
  readonly config?: string;
  readonly json?: boolean;
}

export function command(): Command {
  return new Command("verify")
    .description(
      "A restore drill: restores the newest state to a scratch file, checks every checksum of the log and SQLite's " +
        "integrity, compares with the live database where there is one, and removes the file again.",
    )
    .argument("<db|url>", "a database of the configuration, or a store's URL")
    .addOption(
      new Option("--integrity-check <kind>", "SQLite's own check of the restored file")
        .choices(["none", "quick", "full"])
        .default("full"),
    )
    .option("--scratch-dir <dir>", "where there is room for the scratch file (default: the system's)")
    .addOption(configOption())
    .addOption(jsonOption())
    .addHelpText("after", "\nExamples:\n  $ sluice verify app.db\n  $ sluice verify s3://bucket/app --json")
    .action(async (given: string, flags: Flags) => {
      const target = await findTarget(given, flags.config);
      try {
        await drill(given, target, flags);
      } finally {
        await target.store.close();
      }
    });
}

async function drill(given: string, { store, prefix, db }: Target, flags: Flags): Promise<void> {
  if (db !== undefined) await settle(db);
  const bar = progressBar(!flags.json);
  using stop = stopSignal();
  const found = await verify({
    store,
    prefix,
    integrityCheck: flags.integrityCheck,
    signal: stop.signal,
    onProgress: bar.show,
    ...(flags.scratchDir !== undefined && { scratchDir: flags.scratchDir }),
    ...(db !== undefined && { live: () => liveState(db) }),
  }).finally(() => bar.end());
  const { sizeBytes, elapsedMs, recordChecked, live } = found;
  const [txid, position] = [formatTxid(found.txid), formatPosition(found.position)];
  if (db !== undefined) noteVerified(db, { txid: found.txid, position });
  if (flags.json) {
    const checksum = recordChecked ? "equal" : "none";
    console.log(JSON.stringify({ ok: true, txid, position, sizeBytes, elapsedMs, checksum, live }));
    return;
  }
  const sentences = [
    `${given}: TXID ${txid} restores to ${formatBytes(sizeBytes)} in ${(elapsedMs / 1000).toFixed(1)} s`,
    flags.integrityCheck === "none" ? "integrity not checked" : "integrity ok",
    recordChecked ? "checksum equal to the log's" : "no checksum in the log",
    { equal: "equal to the live database", "moved on": "the live database has moved on", none: "no live database" }[
      live
    ],
  ];
  console.log(sentences.join("; "));
}

import path from "node:path";
import { Command, Option } from "commander";
import { copyOut } from "../../admin/copy-out.ts";
import { formatBytes } from "../output.ts";
import { copyBar } from "../progress.ts";
import { stopSignal } from "../stop-signal.ts";
import { configOption, jsonOption } from "../options.ts";

interface Flags {
  readonly force?: boolean;
  readonly integrityCheck: "none" | "quick" | "full";
  readonly json?: boolean;
}

export function command(): Command {
  return new Command("export")
    .description(
      "Copies a consistent snapshot of a live database into a file, while it's written to: from the Sluice that looks " +
        "after it, else by SQLite's backup.",
    )
    .argument("<db>", "the database")
    .argument("<file>", "where the copy goes")
    .option("--force", "replace a file that is there, after the copy has been checked")
    .addOption(
      new Option("--integrity-check <kind>", "SQLite's own check of the copy")
        .choices(["none", "quick", "full"])
        .default("quick"),
    )
    .addOption(configOption())
    .addOption(jsonOption())
    .addHelpText(
      "after",
      "\nExamples:\n  $ sluice export app.db copy.db\n  $ sluice export app.db /backup/app.db --force --json",
    )
    .action(async (db: string, file: string, { force = false, integrityCheck, json }: Flags) => {
      const bar = copyBar(!json);
      using stop = stopSignal();
      const copied = await copyOut(path.resolve(db), path.resolve(file), {
        force,
        integrityCheck,
        onProgress: bar.show,
        signal: stop.signal,
      }).finally(() => bar.end());
      if (json) return console.log(JSON.stringify(copied));
      const at = copied.position === undefined ? "" : ` at ${copied.position}, checksum equal`;
      console.log(`${copied.path}: ${formatBytes(copied.sizeBytes)}${at}`);
    });
}

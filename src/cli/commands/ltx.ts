import { Command, Option } from "commander";
import { describeLog, type DescribedFile } from "../../log/describe.ts";
import { formatTxid } from "../../log/layout.ts";
import { formatPosition } from "../../ltx/position.ts";
import { formatBytes, table } from "../output.ts";
import { configOption, jsonOption } from "../options.ts";
import { findTarget } from "../target.ts";

export function command(): Command {
  return new Command("ltx")
    .description("Lists the files of a log: which TXIDs they hold, how large they are, when they were written.")
    .argument("<db|url>", "a database of the configuration, or a store's URL")
    .addOption(
      new Option("--level <n>", "one level, or all")
        .choices(["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "all"])
        .default("0"),
    )
    .addOption(configOption())
    .addOption(jsonOption())
    .addHelpText("after", "\nExamples:\n  $ sluice ltx app.db\n  $ sluice ltx --level all s3://bucket/app")
    .action(async (given: string, { level, config, json }: { level: string; config?: string; json?: boolean }) => {
      const { store, prefix } = await findTarget(given, config);
      let files: DescribedFile[];
      try {
        files = await describeLog({ store, prefix }, level === "all" ? {} : { level: Number(level) });
      } finally {
        await store.close();
      }
      const rows = files.map((file) => ({
        level: file.level,
        min_txid: formatTxid(file.minTxid),
        max_txid: formatTxid(file.maxTxid),
        size: file.sizeBytes,
        created: new Date(file.timestampMs).toISOString(),
        position: file.record && formatPosition(file.record.position),
        takeover: file.record?.takeover ?? false,
      }));
      if (json) return console.log(JSON.stringify(rows));
      const cells = rows.map((row) => [
        String(row.level),
        row.min_txid,
        row.max_txid,
        formatBytes(row.size),
        row.created,
        (row.position ?? "-") + (row.takeover ? " takeover" : ""),
      ]);
      console.log(table(["level", "min_txid", "max_txid", "size", "created", "position"], cells));
    });
}

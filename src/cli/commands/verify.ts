import { Command } from "commander";
import { formatTxid } from "../../log/layout.ts";
import { verify } from "../../log/verify.ts";
import { formatPosition } from "../../ltx/position.ts";
import { formatBytes } from "../output.ts";
import { configOption, findTarget, jsonOption } from "../target.ts";

export function command(): Command {
  return new Command("verify")
    .description(
      "A restore drill: restores the newest state to a scratch file, checks every checksum of the log and SQLite's " +
        "integrity, and removes the file again.",
    )
    .argument("<db|url>", "a database of the configuration, or a store's URL")
    .addOption(configOption())
    .addOption(jsonOption())
    .addHelpText("after", "\nExamples:\n  $ sluice verify app.db\n  $ sluice verify s3://bucket/app --json")
    .action(async (given: string, { config, json }: { config?: string; json?: boolean }) => {
      const { store, prefix } = await findTarget(given, config);
      const found = await verify({ store, prefix });
      await store.close();
      const { txid, position, sizeBytes, elapsedMs, recordChecked } = found;
      const shown = {
        ok: true,
        txid: formatTxid(txid),
        position: formatPosition(position),
        sizeBytes,
        elapsedMs,
        checksum: recordChecked ? "equal to the log's" : "not in the log",
      };
      if (json) return console.log(JSON.stringify(shown));
      console.log(
        `${given}: TXID ${shown.txid} restores to ${formatBytes(sizeBytes)} in ${(elapsedMs / 1000).toFixed(1)} s; ` +
          `integrity ok, checksum ${shown.checksum}`,
      );
    });
}

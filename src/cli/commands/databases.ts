import { Command } from "commander";
import { redact } from "../../store/open.ts";
import { table } from "../output.ts";
import { configOption, jsonOption } from "../options.ts";
import { readConfig } from "../target.ts";

export function command(): Command {
  return new Command("databases")
    .description("Lists the databases of the configuration and their stores.")
    .addOption(configOption())
    .addOption(jsonOption())
    .addHelpText("after", "\nExample:\n  $ sluice databases --json")
    .action(({ config, json }: { config?: string; json?: boolean }) => {
      const rows = readConfig(config).dbs.map((db) =>
        db.kind === "file"
          ? { path: db.path, store: redact(db.store.url) }
          : { path: `${db.dir}/${db.recursive ? "**/" : ""}${db.pattern}`, store: redact(db.store.url) },
      );
      console.log(
        json
          ? JSON.stringify(rows)
          : table(
              ["path", "store"],
              rows.map((row) => [row.path, row.store]),
            ),
      );
    });
}

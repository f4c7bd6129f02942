import { Command } from "commander";
import { VERSION } from "../../observe/version.ts";
import { jsonOption } from "../options.ts";

export function command(): Command {
  return new Command("version")
    .description("Prints the version.")
    .addOption(jsonOption())
    .addHelpText("after", "\nExample:\n  $ sluice version --json")
    .action(({ json }: { json?: boolean }) => {
      console.log(json ? JSON.stringify({ version: VERSION, node: process.version }) : VERSION);
    });
}

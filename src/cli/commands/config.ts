import { Command } from "commander";
import { explain } from "../../config/explain.ts";
import { configOption, jsonOption } from "../options.ts";
import { readConfig } from "../target.ts";

export function command(): Command {
  const config = new Command("config")
    .description("Checks, explains or converts a configuration.")
    .addHelpText(
      "after",
      "\nExamples:\n  $ sluice config check\n  $ sluice config explain --json\n  $ sluice config convert litestream.yml",
    );
  config
    .command("check")
    .description("Validates the configuration; every problem with its line.")
    .addOption(configOption())
    .addOption(jsonOption())
    .action(({ config: file, json }: { config?: string; json?: boolean }) => {
      const found = readConfig(file);
      console.log(json ? JSON.stringify({ ok: true, file: found.file }) : `${found.file}: ok`);
    });
  config
    .command("explain")
    .description("Prints the configuration as Sluice understands it, without secrets.")
    .addOption(configOption())
    .addOption(jsonOption())
    .action(({ config: file, json }: { config?: string; json?: boolean }) => {
      const shown = explain(readConfig(file));
      console.log(json ? JSON.stringify(shown.value) : shown.text);
    });
  config
    .command("convert")
    .description("Turns a litestream.yml or litefs.yml into a sluice.yml, on standard output.")
    .argument("<file>", "the other program's configuration")
    .action(async (file: string) => {
      const { convertFile } = await import("../../config/convert.ts");
      process.stdout.write(convertFile(file));
    });
  return config;
}

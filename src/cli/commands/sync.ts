import path from "node:path";
import { Command, Option } from "commander";
import { ask } from "../../admin/client.ts";
import { jsonOption, parse } from "../target.ts";

interface Answer {
  readonly position: string;
  readonly tookMs: number;
}

export function command(): Command {
  return new Command("sync")
    .description("Seals what is committed now and waits until it's durable: on this disk, or in the store.")
    .argument("<db>", "a database that a running Sluice looks after")
    .addOption(new Option("--wait <where>", "local or store").choices(["local", "store"]).default("store"))
    .option("--timeout <duration>", "how long to wait", parse.duration, 30_000)
    .addOption(jsonOption())
    .addHelpText("after", "\nExamples:\n  $ sluice sync app.db\n  $ sluice sync --wait local --timeout 5s app.db")
    .action(async (db: string, { wait, timeout, json }: { wait: string; timeout: number; json?: boolean }) => {
      const file = path.resolve(db);
      const answer = await ask<Answer>(file, "POST", "/v1/sync", { db: file, wait, timeoutMs: timeout });
      if (json) console.log(JSON.stringify(answer));
      else console.log(`${db}: ${answer.position} is durable (${wait}, ${answer.tookMs.toFixed(1)} ms)`);
    });
}

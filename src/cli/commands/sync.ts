import path from "node:path";
import { Command, Option } from "commander";
import { ask } from "../../admin/client.ts";
import { configOption, jsonOption, parse } from "../options.ts";

interface Answer {
  readonly position: string;
  readonly tookMs: number;
}

/** What the way there and back may take beyond the wait itself. */
const ANSWER_MS = 5_000;

export function command(): Command {
  return new Command("sync")
    .description(
      "Seals what is committed now and waits until it's durable: on this disk, on replicas, or in the store.",
    )
    .argument("<db>", "a database that a running Sluice looks after")
    .addOption(
      new Option("--wait <where>", "local, replica or store").choices(["local", "replica", "store"]).default("store"),
    )
    .option("--timeout <duration>", "how long to wait", parse.duration, 30_000)
    .addOption(configOption())
    .addOption(jsonOption())
    .addHelpText("after", "\nExamples:\n  $ sluice sync app.db\n  $ sluice sync --wait local --timeout 5s app.db")
    .action(async (db: string, { wait, timeout, json }: { wait: string; timeout: number; json?: boolean }) => {
      const file = path.resolve(db);
      const body = { db: file, wait, timeoutMs: timeout };
      const question = { method: "POST", path: "/v1/sync", body, limitMs: timeout + ANSWER_MS } as const;
      const answer = await ask<Answer>(file, question);
      if (json) console.log(JSON.stringify(answer));
      else console.log(`${db}: ${answer.position} is durable (${wait}, ${answer.tookMs.toFixed(1)} ms)`);
    });
}

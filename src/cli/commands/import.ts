import path from "node:path";
import { Command, Option } from "commander";
import { ask } from "../../admin/client.ts";
import { copyIn } from "../../admin/copy-in.ts";
import { readOwner } from "../../admin/owner.ts";
import { formatBytes } from "../output.ts";
import { copyBar } from "../progress.ts";
import { stopSignal } from "../stop-signal.ts";
import { configOption, jsonOption, parse } from "../options.ts";

interface Flags {
  readonly force?: boolean;
  readonly integrityCheck: "none" | "quick" | "full";
  readonly timeout: number;
  readonly wait: "none" | "local" | "store";
  readonly json?: boolean;
}

/** What the way there and back may take beyond the wait itself. */
const ANSWER_MS = 5_000;

export function command(): Command {
  return new Command("import")
    .description(
      "Puts a file in the place of a live database as one commit: applications that have it open see the old content, " +
        "then the new one, and go on.",
    )
    .argument("<file>", "a SQLite database; it's only read")
    .argument("<db>", "the database whose content it becomes")
    .option("--force", "also when tables of the database are not in the file")
    .addOption(
      new Option("--integrity-check <kind>", "SQLite's own check of the file, before anything is written")
        .choices(["none", "quick", "full"])
        .default("quick"),
    )
    .option("--timeout <duration>", "how long to wait for a writer that holds the database", parse.duration, 30_000)
    .addOption(
      new Option("--wait <where>", "until it's durable there, where a Sluice looks after the database")
        .choices(["none", "local", "store"])
        .default("local"),
    )
    .addOption(configOption())
    .addOption(jsonOption())
    .addHelpText(
      "after",
      "\nExamples:\n  $ sluice import staging.db app.db\n  $ sluice export app.db before.db && sluice import new.db app.db --wait store",
    )
    .action(async (file: string, given: string, flags: Flags) => {
      const db = path.resolve(given);
      const { force = false, integrityCheck, timeout, wait, json } = flags;
      const bar = copyBar(!json);
      using stop = stopSignal();
      const imported = await copyIn(path.resolve(file), db, {
        force,
        integrityCheck,
        timeoutMs: timeout,
        onProgress: bar.show,
        signal: stop.signal,
      }).finally(() => bar.end());
      const position = wait === "none" ? undefined : await settle(db, wait, timeout);
      if (json) return console.log(JSON.stringify({ db, ...imported, position }));
      const where = position === undefined ? "" : `; ${position} is durable (${wait})`;
      const how = imported.isNew ? "created" : `one commit, writers waited ${Math.round(imported.lockedMs)} ms`;
      console.log(`${db}: ${formatBytes(imported.sizeBytes)}, ${how}${where}`);
    });
}

/** The position that holds the import, once it's durable; undefined where no Sluice runs: its next start captures it. */
async function settle(db: string, wait: "local" | "store", timeoutMs: number): Promise<string | undefined> {
  if (readOwner(db) === undefined) return undefined;
  const question = { method: "POST", path: "/v1/sync", body: { db, wait, timeoutMs } } as const;
  return (await ask<{ readonly position: string }>(db, { ...question, limitMs: timeoutMs + ANSWER_MS })).position;
}

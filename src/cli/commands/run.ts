import path from "node:path";
import { Command } from "commander";
import type { Config } from "../../config/config.ts";
import { SluiceError } from "../../errors/error.ts";
import { dropCleanPages } from "../../observe/clean-pages.ts";
import { execEntries, type ExecEntry } from "../../supervise/exec-list.ts";
import { runApplication } from "../../supervise/run.ts";
import { noteDir, serve } from "../serve.ts";
import { configOption, noTakeoverOption } from "../options.ts";
import { lone, readConfig } from "../target.ts";

interface Flags {
  readonly db?: string;
  readonly store?: string;
  readonly adopt?: boolean;
  readonly acceptRollback?: boolean;
  readonly takeover: boolean;
  readonly config?: string;
}

export function command(): Command {
  return new Command("run")
    .description(
      "Restores what is missing, protects the databases, and runs the application: the command after --, or the `exec` " +
        "list of the configuration. Ends with the application's exit status.",
    )
    .argument("[command...]", "the application and its arguments, after --")
    .option("--db <path>", "the database, in place of a configuration")
    .option("--store <url>", "its store, with --db")
    .option("--adopt", "put a database that the log doesn't know into the quarantine, and restore the log's")
    .option("--accept-rollback", "go on although the store has less than it had confirmed")
    .addOption(noTakeoverOption())
    .addOption(configOption())
    .passThroughOptions()
    .addHelpText(
      "after",
      `
Examples:
  $ sluice run --db app.db --store s3://bucket/app -- gunicorn mysite.wsgi
  $ sluice run --config sluice.yml
  $ sluice run -- npm start`,
    )
    .action(async (argv: string[], flags: Flags) => {
      process.exit(await run(argv, flags));
    });
}

async function run(argv: readonly string[], flags: Flags): Promise<number> {
  const config = configOf(flags);
  const entries: ExecEntry[] = argv.length > 0 ? [{ argv, on: "any", wait: false }] : execEntries(config.exec);
  const { node, log, runNode } = await serve(config, {
    restoreMissing: true,
    adopt: flags.adopt ?? false,
    acceptRollback: flags.acceptRollback ?? false,
    takesOver: flags.takeover,
  });
  return runApplication({
    node: {
      ...runNode,
      get role() {
        return runNode.role;
      },
      async start(stopping, holder) {
        await runNode.start(stopping, holder);
        dropCleanPages();
      },
    },
    entries,
    guardianFile: path.join(noteDir(config), "guardian.json"),
    takesOver: flags.takeover && config.cluster === undefined,
    env: process.env,
    log,
    fatal: node.fatal,
  });
}

function configOf({ db, store, config }: Flags): Config {
  if (db === undefined && store === undefined) return readConfig(config);
  if (db !== undefined && store !== undefined) return lone(db, store);
  throw new SluiceError("SLU-1000", "--db and --store go together");
}

import path from "node:path";
import { Command, Option } from "commander";
import type { Config } from "../../config/config.ts";
import { SluiceError } from "../../errors/error.ts";
import { dropCleanPages } from "../../observe/clean-pages.ts";
import { execEntries } from "../../supervise/exec-list.ts";
import { runApplication } from "../../supervise/run.ts";
import { noteDir, serve, type Served } from "../serve.ts";
import { configOption, noTakeoverOption } from "../options.ts";
import { lone, readConfig } from "../target.ts";

interface Flags {
  readonly once?: boolean;
  readonly exec?: string;
  readonly restoreIfDbNotExists?: boolean;
  readonly takeover: boolean;
  readonly config?: string;
}

export function command(): Command {
  return new Command("replicate")
    .description("Backs databases up, beside an application that runs by itself. One node, no lease.")
    .argument("[db]", "a database; default: those of the configuration")
    .argument("[store]", "its store's URL")
    .addOption(new Option("--once", "sync once and exit").conflicts("exec"))
    .option("--exec <cmd>", "run this command, and end with it")
    .option("--restore-if-db-not-exists", "restore a missing database first")
    .addOption(noTakeoverOption())
    .addOption(configOption())
    .addHelpText(
      "after",
      `
Examples:
  $ sluice replicate app.db s3://bucket/app
  $ sluice replicate --once app.db file:///backup/app
  $ sluice replicate --exec "gunicorn mysite.wsgi" --config sluice.yml`,
    )
    .action(async (db: string | undefined, store: string | undefined, flags: Flags) => {
      process.exit(await run(configOf(db, store, flags), flags));
    });
}

async function run(config: Config, flags: Flags): Promise<number> {
  const served = await serve(
    { ...config, cluster: undefined, proxy: undefined },
    { restoreMissing: flags.restoreIfDbNotExists ?? false, takesOver: flags.takeover && flags.once !== true },
  );
  if (flags.once) return syncOnce(served);
  if (config.exec.length > 0 && flags.exec === undefined)
    served.log.warn("`exec` of the configuration is started by `sluice run` only");
  return runApplication({
    node: {
      ...served.runNode,
      async start(stopping, holder) {
        await served.runNode.start(stopping, holder);
        dropCleanPages();
      },
    },
    entries: flags.exec === undefined ? [] : execEntries([flags.exec]),
    guardianFile: path.join(noteDir(config), "guardian.json"),
    takesOver: flags.takeover,
    env: process.env,
    log: served.log,
    fatal: served.node.fatal,
  });
}

async function syncOnce({ node, runNode }: Served): Promise<number> {
  try {
    await runNode.start(new AbortController().signal, undefined);
    for (const { path: db, state } of node.databases) {
      if (state === "waiting") throw new SluiceError("SLU-2005", `${db}: there is no database`);
      await node.sync(db, "store", AbortSignal.timeout(24 * 60 * 60_000));
    }
  } finally {
    await runNode.stop();
  }
  return 0;
}

function configOf(db: string | undefined, store: string | undefined, { config }: Flags): Config {
  if (db === undefined) return readConfig(config);
  if (store !== undefined) return lone(db, store);
  throw new SluiceError("SLU-1000", "a database on the command line needs its store's URL behind it");
}

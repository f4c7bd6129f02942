import path from "node:path";
import { Command } from "commander";
import { type Borrowed, borrow } from "../../admin/borrow.ts";
import { formatDuration } from "../../config/duration.ts";
import { isSluiceError, SluiceError } from "../../errors/error.ts";
import { findCommand } from "../../supervise/exec-list.ts";
import { runInForeground } from "../../supervise/foreground.ts";
import { configOption, parse } from "../options.ts";
import { fail } from "../output.ts";
import { ownDatabase } from "../own-database.ts";
import { stopSignal } from "../stop-signal.ts";

/** The node takes the primary back by itself when this process should have given it back, and hasn't. */
const SPARE_MS = 60_000;

interface Flags {
  readonly onPrimary?: boolean;
  readonly db?: string;
  readonly timeout: number;
  readonly wait: number;
  readonly config?: string;
}

export function command(): Command {
  return new Command("exec")
    .description(
      "Runs the command after -- while this node is the primary, so that it may write, with SLUICE_ON_PRIMARY=1 in its " +
        "environment. A replica takes over for that time, and hands back when everything is in the store; requests wait for " +
        "moments, none fails. Ends with the command's exit status.",
    )
    .argument("<command...>", "the command and its arguments, after --")
    .option("--on-primary", "the one way there is so far to run a command; required")
    .option("--db <path>", "only this database must be writable; default: all of the node")
    .option("--timeout <duration>", "how long the command may take", parse.duration, 600_000)
    .option(
      "--wait <duration>",
      "how long to wait for another command, for a primary, and at the end for the node that was it",
      parse.duration,
      60_000,
    )
    .addOption(configOption())
    .passThroughOptions()
    .addHelpText(
      "after",
      "\nExamples:\n  $ sluice exec --on-primary -- python manage.py migrate\n" +
        "  $ sluice exec --on-primary --timeout 1h -- sqlite3 app.db",
    )
    .action(async (argv: string[], flags: Flags) => {
      process.exit(await exec(argv, flags).catch(failed));
    });
}

async function exec(argv: readonly string[], { onPrimary = false, db, timeout, wait, config }: Flags): Promise<number> {
  if (!onPrimary) throw new SluiceError("SLU-1000", "exec needs --on-primary");
  // Before anything changes for others.
  findCommand(argv[0] ?? "", process.env);
  const file = db === undefined ? ownDatabase(config) : path.resolve(db);
  const borrowed = await taken(file, db === undefined ? undefined : file, { timeout, wait });
  const { home, node } = borrowed;
  if (home !== undefined) say(`${node} is the primary for this command; ${home} was`);
  const late = AbortSignal.timeout(timeout);
  const stop = AbortSignal.any([borrowed.lost, late]);
  const status = await runInForeground(argv, { ...process.env, SLUICE_ON_PRIMARY: "1" }, stop).catch(failed);
  if (borrowed.lost.aborted) {
    fail(borrowed.lost.reason, false);
    return status || 1;
  }
  if (late.aborted) {
    fail(new SluiceError("SLU-8114", `${argv[0]} has not ended within ${formatDuration(timeout)}`), false);
  }
  return (await givenBack(borrowed)) && !late.aborted ? status : status || 1;
}

/** Until the primary is here, which a signal ends: then it is handed back. */
async function taken(
  file: string,
  db: string | undefined,
  { timeout, wait }: Pick<Flags, "timeout" | "wait">,
): Promise<Borrowed> {
  using stop = stopSignal();
  let said = "";
  const onWaiting = (reason: string): void => {
    if (reason !== said) say(`waiting: ${reason}`);
    said = reason;
  };
  return await borrow(file, { db, waitMs: wait, limitMs: timeout + SPARE_MS }, onWaiting, stop.signal);
}

/** Whether the command's commits are in the store; says what else there is to know. */
async function givenBack({ giveBack, home, node }: Borrowed): Promise<boolean> {
  using stop = stopSignal();
  const left = new Promise<never>((_resolve, reject) => {
    stop.signal.addEventListener("abort", () => reject(stop.signal.reason as Error), { once: true });
  });
  try {
    const { primary, kept } = await Promise.race([giveBack(), left]);
    if (kept !== undefined) say(`${node} stays the primary, ${home} can't take over: ${kept}`);
    else if (home !== undefined) say(`everything is in the store, ${primary} is the primary again`);
    return true;
  } catch (error) {
    if (stop.signal.aborted) say("not waiting any more; the node goes on storing, and hands back, by itself");
    else fail(error, false);
    return false;
  }
}

/** As a shell: 127 for a command that isn't there, 126 for one that can't be executed. */
function failed(error: unknown): number {
  const status = fail(error, false);
  if (isSluiceError(error, "SLU-6001")) return 127;
  return isSluiceError(error, "SLU-6002") ? 126 : status;
}

function say(text: string): void {
  console.error(`sluice: ${text}`);
}

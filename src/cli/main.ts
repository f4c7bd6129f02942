import { Command, CommanderError } from "commander";
import { fail } from "./output.ts";

/** What each command does, in a line; its code is loaded when it's used. */
const COMMANDS: readonly [name: string, summary: string][] = [
  ["run", "restore, replicate, and run an application"],
  ["replicate", "back databases up, beside an application that runs by itself"],
  ["restore", "restore a database from its store"],
  ["status", "show what a running Sluice does, or what is on this disk"],
  ["databases", "list the databases of the configuration"],
  ["ltx", "list the files of a log"],
  ["sync", "wait until what is committed now is durable"],
  ["verify", "restore to a scratch file and check it"],
  ["demo", "a cluster on this machine that loses its primary and its disks"],
  ["promote", "make this node, or another, the primary"],
  ["exec", "run a command while this node is the primary"],
  ["forget", "end a database's log on purpose, so that nothing restores it"],
  ["export", "copy a consistent snapshot of a live database into a file"],
  ["import", "put a file in the place of a live database, as one commit"],
  ["quarantine", "show and bring back commits that left a database's history"],
  ["config", "check, explain or convert a configuration"],
  ["version", "print the version"],
];

/** The file of each command; a literal, so that it can be found and bundled. */
const LOADERS: Readonly<Record<string, () => Promise<{ command: () => Command }>>> = {
  run: () => import("./commands/run.ts"),
  replicate: () => import("./commands/replicate.ts"),
  restore: () => import("./commands/restore.ts"),
  status: () => import("./commands/status.ts"),
  databases: () => import("./commands/databases.ts"),
  ltx: () => import("./commands/ltx.ts"),
  sync: () => import("./commands/sync.ts"),
  verify: () => import("./commands/verify.ts"),
  demo: () => import("./commands/demo.ts"),
  promote: () => import("./commands/promote.ts"),
  exec: () => import("./commands/exec.ts"),
  forget: () => import("./commands/forget.ts"),
  export: () => import("./commands/export.ts"),
  import: () => import("./commands/import.ts"),
  quarantine: () => import("./commands/quarantine.ts"),
  config: () => import("./commands/config.ts"),
  version: () => import("./commands/version.ts"),
};

const program = new Command("sluice")
  .description("Streams SQLite databases to an object store and restores them, beside any application.")
  .enablePositionalOptions()
  .addHelpText(
    "after",
    `
Examples:
  $ sluice run --db app.db --store s3://bucket/app -- gunicorn mysite.wsgi
  $ sluice restore -o app.db s3://bucket/app
  $ sluice status app.db`,
  );

// `sluice ltx … | head`: the reader has seen enough.
process.stdout.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? 0 : 1));

const given = process.argv.slice(2);
const [first, second] = given.filter((arg) => !arg.startsWith("-"));
const named = first === "help" ? second : first;
for (const [name, summary] of COMMANDS) {
  const loaded = name === named ? await LOADERS[name]!() : undefined;
  program.addCommand(loaded?.command() ?? new Command(name).description(summary));
}
const args = withDoubleDashes(
  given,
  program.commands.find((command) => command.name() === named),
);
program.exitOverride();
for (const command of program.commands) {
  command.exitOverride();
  for (const below of command.commands) below.exitOverride();
}

try {
  await program.parseAsync(args, { from: "user" });
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : 2;
  else process.exitCode = fail(error, args.includes("--json"));
}

/** Litestream writes `-if-db-not-exists` with one dash: what the command knows with two is understood with one, too. */
function withDoubleDashes(words: readonly string[], command: Command | undefined): string[] {
  const known = new Set(command?.options.map(({ long }) => long));
  const end = words.indexOf("--");
  return words.map((word, i) => {
    const before = end < 0 || i < end;
    return before && /^-[a-z][a-z-]+(?:=|$)/.test(word) && known.has(`-${word.split("=")[0]}`) ? `-${word}` : word;
  });
}

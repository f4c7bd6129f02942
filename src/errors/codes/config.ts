/** Codes SLU-1xxx: configuration and command line. */
export const configCodes = {
  "SLU-1000": {
    title: "Wrong usage",
    meaning: "The command line doesn't make sense to Sluice. Nothing was done.",
    normal: "Never.",
    remedy: "`sluice COMMAND --help` has examples.",
  },
  "SLU-1001": {
    title: "No configuration",
    meaning:
      "There is no configuration file where Sluice looks for one: --config, SLUICE_CONFIG, ./sluice.yml, /etc/sluice.yml.",
    normal: "Never.",
    remedy:
      "Write a sluice.yml, or name a database and a store on the command line: `sluice run --db PATH --store URL -- CMD`.",
  },
  "SLU-1002": {
    title: "The configuration is not valid",
    meaning: "The file has keys or values that Sluice doesn't know, or that don't fit together. Nothing was started.",
    normal: "Never.",
    remedy: "Correct the lines named; `sluice config check` checks again, `docs/configuration.md` lists every key.",
  },
  "SLU-1003": {
    title: "No such database in the configuration",
    meaning: "A database was named that the configuration doesn't have, and no store was named with it.",
    normal: "Never.",
    remedy: "`sluice databases` lists what is configured; a store's URL works in place of a database, too.",
  },
  "SLU-1004": {
    title: "Nobody looks after the database",
    meaning: "The command asks a running Sluice, and none looks after this database on this machine.",
    normal: "When Sluice isn't running.",
    remedy: "Start `sluice run` or `sluice replicate` for it, as the same user.",
  },
  "SLU-1005": {
    title: "The admin address can't be used",
    meaning: "Sluice can't listen at `node.listen`: another program does, or the address isn't this machine's.",
    normal: "Never.",
    remedy: "Choose another port or address.",
  },
  "SLU-1006": {
    title: "The wait ended before the commits were durable",
    meaning:
      "A sync was asked to wait, and its time was over before the store had confirmed everything. The commits are safe in the local files, and Sluice goes on sending them.",
    normal: "When the store is slow or away.",
    remedy: "`sluice status` shows how far the store is.",
  },
  "SLU-1008": {
    title: "Stopped",
    meaning: "A signal ended the command before it was done. A restore leaves its target as it was.",
    normal: "After Ctrl-C.",
    remedy: "Run it again; what was fetched is fetched anew.",
  },
  "SLU-1010": {
    title: "Not in the quarantine",
    meaning: "No entry of the quarantine has this id, or the beginning of an id fits several.",
    normal: "Never.",
    remedy: "`sluice quarantine list` shows the ids; `--db` says which database is meant.",
  },
  "SLU-1011": {
    title: "An entry of the quarantine can't be read",
    meaning: "The file was cut off, damaged, or changed since it was put there. It is left as it is.",
    normal: "Never.",
    remedy: "Check the disk. The entry's files are in `.NAME-sluice/quarantine/`; copy them before you try anything.",
  },
  "SLU-1012": {
    title: "Nothing to lay quarantined pages over",
    meaning:
      "The quarantine has the pages that differed and not the whole database. The state of the log that they go on from is gone or can't be reached, and the database isn't there either.",
    normal: "Long after the pages were put there, when retention has deleted that state and the database was removed.",
    remedy:
      "Name the log by a configuration (`--config`), or bring the database back with `sluice restore`: its present state will do for pages that have not changed since.",
  },
  "SLU-1013": {
    title: "The database can't be exported now",
    meaning:
      "The process that was asked for a copy has the database not open as its primary: it starts, waits, or follows.",
    normal: "While Sluice starts, and on replicas.",
    remedy: "Ask again when `sluice status` says that it's protected, or ask the primary.",
  },
  "SLU-1015": {
    title: "The file can't take the database's place",
    meaning:
      "Connections that have a database open remember its page size, text encoding, auto_vacuum and reserved bytes; a file that differs in one of them would break them, or be damaged by them. A file without the database's tables is taken for the wrong one. Nothing was written.",
    normal: "Never.",
    remedy:
      "Make the file alike: `PRAGMA page_size`, `PRAGMA encoding` and `PRAGMA auto_vacuum` before `VACUUM INTO`, or `.dump` into a new database with these settings.",
  },
  "SLU-1016": {
    title: "The database can't be written to",
    meaning: "An import waits for the write lock like any writer. It didn't get it, and nothing was written.",
    normal: "While a transaction goes on for long, and on replicas.",
    remedy: "Find out who holds a transaction open, or give it more time with --timeout.",
  },
  "SLU-1017": {
    title: "Somebody looks after the database",
    meaning: "`sluice forget` ends a log for good, and a running Sluice would go on writing to it. Nothing was done.",
    normal: "Never.",
    remedy:
      "Stop Sluice on every node first. For one database of a directory it's enough to delete its file on the primary.",
  },
  "SLU-1014": {
    title: "A copy was broken off",
    meaning:
      "Not all of the database came, or its checksum is another than was said. A copy keeps the WAL from being merged, so it's ended when it takes more than ten minutes or when the WAL grows too far meanwhile. The target is as it was.",
    normal: "When Sluice is stopped meanwhile.",
    remedy: "Export again, to a faster disk or over a faster network; `sluice restore` reads the store instead.",
  },
} as const;

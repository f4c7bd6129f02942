/** Codes SLU-4xxx: log. */
export const logCodes = {
  "SLU-4000": {
    title: "Internal error (log)",
    meaning: "Sluice met a state that its own rules exclude. It stopped before it could do harm.",
    normal: "Never.",
    remedy: "Please report it with the log around this line; the data on disk and in the store was left as it is.",
  },
  "SLU-4501": {
    title: "No backup found",
    meaning: "The store has no file of this database's log, so there is nothing to restore.",
    normal: "Before the first upload; with --if-replica-exists it counts as success.",
    remedy: "Check the URL, its path above all: it is the one of the database, not of the bucket.",
  },
  "SLU-4502": {
    title: "No such TXID in the log",
    meaning: "The log does not hold the state after exactly this TXID: it was never written, or was compacted away.",
    normal: "For states older than the retention of level 0, of which only the ends of compacted files remain.",
    remedy: "Choose one of the nearest states that the message names; `sluice ltx --level all` lists all files.",
  },
  "SLU-4503": {
    title: "The log does not reach back that far",
    meaning: "Every state that is still in the log is newer than the time that was asked for.",
    normal: "For times before the oldest snapshot that retention has kept.",
    remedy: "Choose a time in the range that the message names.",
  },
  "SLU-4504": {
    title: "A gap in the log",
    meaning:
      "Files of the log are missing, so what is behind them can't be restored. A restore of the newest state refuses to bring back an older one in silence.",
    normal: "Never. Something deleted objects, or two programs wrote to one place.",
    remedy: "Restore the state before the gap with --txid, or let the live database write a new snapshot.",
  },
  "SLU-4505": {
    title: "The file to restore to exists",
    meaning:
      "There is already a file at the target, and a restore never overwrites one unless it is told to. Nothing was changed.",
    normal: "When a restore is repeated; with --if-db-not-exists it counts as success.",
    remedy: "Restore to another path with -o, or add --force: the old file is replaced after the new one is verified.",
  },
  "SLU-4506": {
    title: "Not enough room to restore",
    meaning: "The disk has less free space than the restored database needs beside what is there. Nothing was changed.",
    normal: "Never.",
    remedy: "Free some space, or restore to another disk with -o.",
  },
  "SLU-4507": {
    title: "The restored database is not sound",
    meaning:
      "SQLite's own check of the restored file found damage, although all checksums of the log were right: the database was damaged when it was captured. The file was not put in place.",
    normal: "Never.",
    remedy:
      "Restore an older state with --txid or --timestamp, or take this one with --integrity-check none and repair it (`.recover` of SQLite's shell).",
  },
  "SLU-4508": {
    title: "The restored database is not what the log says",
    meaning:
      "The checksum of the restored pages differs from the one that the last record holds. The file was not put in place.",
    normal: "Never.",
    remedy: "Restore an older state with --txid, let the live database write a new snapshot, and please report it.",
  },
  "SLU-4509": {
    title: "Files of the log do not fit together",
    meaning:
      "A file's contents contradict its name or its neighbours: another page size, other TXIDs, or pages that no file holds.",
    normal: "Never.",
    remedy: "Restore an older state with --txid. A snapshot from the live database heals the log.",
  },
  "SLU-4510": {
    title: "The log changed too fast to restore",
    meaning:
      "Files that the restore needed were deleted while it ran, again and again, although it planned anew each time.",
    normal: "Never; compaction replaces files a few times an hour.",
    remedy: "Look for a retention or lifecycle rule that deletes objects too early, then restore again.",
  },
  "SLU-4511": {
    title: "The restored file can't be written",
    meaning:
      "The system refused to write beside the target or to put the new file in place. The old file is as it was.",
    normal: "Never.",
    remedy: "Check free space, permissions and the mount of the target directory.",
  },
  "SLU-4512": {
    title: "A backup of Litestream 0.3 is incomplete or damaged",
    meaning: "A snapshot or WAL segment of the generation is missing, cut short, or has wrong checksums.",
    normal: "Never.",
    remedy: "Restore a time before the damage with --timestamp.",
  },
  "SLU-4513": {
    title: "The followed log can't be continued",
    meaning: "The file that is kept up to date is at a state from which no file in the log goes on.",
    normal: "When a follower was away for longer than the log's retention and no level reaches back.",
    remedy: "Start the follower with --force to restore the newest state anew.",
  },
  "SLU-4514": {
    title: "The followed file was changed by somebody else",
    meaning: "The file that is kept up to date is not as the last update left it. It was left as it is.",
    normal: "Never. An application wrote to it; a followed file is for reading.",
    remedy: "Keep the changed file under another name if it matters, then restore with --force.",
  },
  "SLU-4515": {
    title: "The live database and its log differ",
    meaning: "At one and the same position the live database and the restored one have different checksums.",
    normal: "Never.",
    remedy: "Keep both, check the live file with `PRAGMA integrity_check`, and let Sluice write a new snapshot.",
  },
  "SLU-4516": {
    title: "The file to replace is in use",
    meaning:
      "A process has the database open that --force would replace. SQLite connections that outlive their file can delete the new one's WAL, so nothing was changed.",
    normal: "While the application, or a Sluice that looks after this database, runs.",
    remedy: "Stop the application and Sluice, then restore again; or restore to another path with -o.",
  },
} as const;

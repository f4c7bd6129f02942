/** Codes SLU-4xxx: log. */
export const logCodes = {
  "SLU-4000": {
    title: "Internal error (log)",
    meaning: "Sluice met a state that its own rules exclude. It stopped before it could do harm.",
    normal: "Never.",
    remedy: "Please report it with the log around this line; the data on disk and in the store was left as it is.",
  },
  "SLU-4101": {
    title: "Another writer has the log",
    meaning:
      "The log holds records that this node did not write. Two copies of one database wrote to one log, or this copy is an old one. This node has stopped writing; what it had not uploaded stays beside the database.",
    normal: "When an old machine comes back after its successor has taken over.",
    remedy:
      "Make sure that only one copy runs. To go on here with what the log has, start with --adopt: this file goes to the quarantine first and the log is restored.",
  },
  "SLU-4102": {
    title: "The log was rolled back",
    meaning:
      "The store has less of the log than it had confirmed to this node: the bucket was restored from an older copy, emptied, or is another one. Going on would leave a hole that no restore can cross, so nothing was written.",
    normal: "When the store was changed on purpose to an empty place.",
    remedy:
      "Look at what happened to the store. To go on from this database, start with --accept-rollback: Sluice continues behind the last number and uploads a full snapshot.",
  },
  "SLU-4103": {
    title: "Another program writes to this log",
    meaning:
      "The newest file of the log was not written by Sluice although Sluice has written here before: Litestream or a script uses the same path. Nothing was applied or overwritten.",
    normal: "Never.",
    remedy:
      "Stop the other program and give each its own path. The log before that file is intact: `sluice restore --txid`.",
  },
  "SLU-4104": {
    title: "This database has no history with the log",
    meaning:
      "There is a database here without Sluice's state directory, and the log is not empty. Sluice can't know whether the file is newer, older or another application's, and so does not touch either.",
    normal: "When a database file was copied into place, or its state directory was deleted.",
    remedy:
      "If the log is right, start with --adopt: this file goes to the quarantine first and the log is restored. If the file is right, give it a new, empty place in the store.",
  },
  "SLU-4105": {
    title: "This database belongs to another log",
    meaning:
      "The state beside the database names a log that is not the one in this place of the store. Two databases' configurations were swapped, or a foreign backup lies here. Nothing was written.",
    normal: "Never.",
    remedy:
      "Check which URL belongs to which database. If this log is the right one, start with --adopt: the file goes to the quarantine first and the log is restored.",
  },
  "SLU-4106": {
    title: "The log was ended",
    meaning:
      "`sluice forget` ended this log on purpose. Nothing is written to it any more, and a missing database isn't restored from it by itself; its files are still there.",
    normal: "After `sluice forget`.",
    remedy:
      "`sluice restore -o FILE URL` still gets the data. For a new database use another place in the store, or delete the old log's objects to use this one again.",
  },
  "SLU-4107": {
    title: "The log's identity can't be read",
    meaning: "The object `sluice.json` beside the log is damaged, or was written by a newer Sluice.",
    normal: "Never.",
    remedy: "Update Sluice, or put the object back from the bucket's versions. Its content is short and readable.",
  },
  "SLU-4108": {
    title: "A sealed batch is damaged on disk",
    meaning:
      "A file of the state directory that had not been uploaded yet is gone or has another size. Sluice stopped writing this log rather than send something else in its place.",
    normal: "Never. Something deleted or changed files in the state directory.",
    remedy:
      "Find out what touched the directory. `--adopt` sets this database aside and restores the log as it is in the store.",
  },
  "SLU-4109": {
    title: "Not confirmed: the outcome is unknown",
    meaning:
      "Sluice stopped, or lost the log, while something waited to be durable in the store. It's committed in the local database; whether it's in the log was not known at that moment.",
    normal: "At shutdown while the store can't be reached.",
    remedy: "Nothing to do: what is sealed is sent again at the next start.",
  },
  "SLU-4110": {
    title: "The log has a hole",
    meaning:
      "A file that the log needs is gone from the store, and no other file covers it. Sluice uploads a full snapshot of the live database at once, from which everything newer can be restored.",
    normal: "After --accept-rollback.",
    remedy: "Look for a lifecycle rule, a script or a person that deletes objects. States inside the hole are lost.",
  },
  "SLU-4111": {
    title: "A file of the log is not what its name says",
    meaning: "The header of an LTX file in the store names other TXIDs than its key, or can't be read.",
    normal: "Never.",
    remedy: "Something changed objects in the store. A snapshot from the live database heals the log.",
  },
  "SLU-4112": {
    title: "A snapshot was given up",
    meaning:
      "The database could not hold one picture for long enough: writing it to the store took longer than the WAL may grow. Writers were not stopped; the snapshot is tried again later.",
    normal: "Now and then, while the store is slow and the application writes much.",
    remedy: "If it stays so, the uplink is too slow for the size of the database.",
  },
  "SLU-4113": {
    title: "Refused to start with an empty disk",
    meaning:
      "The database isn't on this disk, and the store can't be asked what was in it. Sluice refuses to start the application, which would create an empty database in its place.",
    normal: "When the store is away while a new machine starts: the platform starts Sluice again until it is back.",
    remedy:
      "Make the store reachable. If the database really is new, any store that can be listed and is empty will do.",
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

/** Codes SLU-2xxx: database. */
export const databaseCodes = {
  "SLU-2000": {
    title: "Internal error (database)",
    meaning: "Sluice met a state that its own rules exclude. It stopped before it could do harm.",
    normal: "Never.",
    remedy: "Please report it with the log around this line; the data on disk and in the store was left as it is.",
  },
  "SLU-2001": {
    title: "No byte-range locks on this platform",
    meaning:
      "Sluice needs open-file-description locks (Linux on x64 or arm64) to stand beside SQLite. It did not open the database.",
    normal: "Never on Linux.",
    remedy: "Run Sluice on Linux, on the same machine and kernel as the application.",
  },
  "SLU-2002": {
    title: "The file system refused a lock call",
    meaning:
      "The kernel answered a lock request on the database with an error that is not 'busy'. Network file systems do this.",
    normal: "Never on a local file system.",
    remedy: "Put the database on a local file system (ext4, xfs, btrfs, …); SQLite's WAL mode needs one, too.",
  },
  "SLU-2003": {
    title: "Somebody else holds the database",
    meaning:
      "Locks that Sluice needs for as long as it runs are held: by another Sluice, by Litestream or another checkpointer, or by an application with locking_mode=EXCLUSIVE or vfs=unix-excl. Sluice tried for a while and changed nothing.",
    normal: "For a moment while an application opens, closes or recovers the database; Sluice retries.",
    remedy: "Stop the other program that looks after this database, or set locking_mode=NORMAL in the application.",
  },
  "SLU-2004": {
    title: "The database can't be opened",
    meaning:
      "SQLite could not open the database or read it in WAL mode. The cause stands in the message. Nothing was changed.",
    normal: "Never.",
    remedy: "Look at the cause; `PRAGMA integrity_check` tells whether the file is damaged.",
  },
  "SLU-2005": {
    title: "No database yet",
    meaning:
      "The file doesn't exist or has less than one page. Sluice never creates a database that the application will fill.",
    normal: "Before the application has written its first transaction.",
    remedy: "Start the application; Sluice opens the database as soon as it is there.",
  },
  "SLU-2006": {
    title: "The database was replaced under Sluice",
    meaning:
      "The database file, its WAL or its wal-index was deleted, renamed, truncated or replaced while Sluice had it open. Capture of the old file stopped; what it had captured stays.",
    normal: "When you moved a new file into place on purpose.",
    remedy:
      "Nothing to do if it was on purpose: Sluice opens the new file and compares it page by page. Otherwise find out what touched the files.",
  },
  "SLU-2007": {
    title: "Frames of the WAL were lost",
    meaning:
      "The WAL holds something other than what Sluice knows it must hold: it was restarted or damaged by somebody who went around SQLite's locks. Capture stopped.",
    normal: "Never.",
    remedy:
      "Sluice compares the database page by page and goes on. Make sure that nothing deletes -wal or -shm files or opens the database without locks.",
  },
  "SLU-2008": {
    title: "Disk full",
    meaning:
      "A write beside the database failed because the disk (or quota) is full. Nothing half-written counts; capture goes on and the step is retried.",
    normal: "Never.",
    remedy: "Free some space. Until then the WAL grows, and at the end the application can't write either.",
  },
  "SLU-2009": {
    title: "Permission denied",
    meaning: "Sluice may not read or write a file beside the database. The step is retried.",
    normal: "Never.",
    remedy:
      "Give the user that runs Sluice read and write access to the database, its -wal and -shm files and their directory.",
  },
  "SLU-2010": {
    title: "Input/output error",
    meaning:
      "The system could not read or write a file of the database. Nothing half-done counts; the step is retried.",
    normal: "Never.",
    remedy: "Look at the system log for failing storage.",
  },
  "SLU-2011": {
    title: "The WAL can't be merged into the database",
    meaning:
      "Very many frames are in the WAL only, because a reader has kept an old snapshot open all the time. Reads get slower and the WAL grows.",
    normal: "During one very long report or backup.",
    remedy: "Find the connection with a long-open read transaction and end it.",
  },
  "SLU-2012": {
    title: "Snapshot given up",
    meaning:
      "A snapshot took longer, or the WAL grew larger meanwhile, than its limits allow. Writers were not stopped; the snapshot is tried again later.",
    normal: "Now and then under very heavy writes.",
    remedy: "Nothing at once. If it repeats, give the store more bandwidth or raise the limits.",
  },
  "SLU-2013": {
    title: "The database is closed",
    meaning: "An operation was asked of a database that Sluice had closed, or stopped capturing, already.",
    normal: "While Sluice stops.",
    remedy: "Nothing.",
  },
  "SLU-2014": {
    title: "The state of a database is damaged",
    meaning:
      "The file `state` in the database's `.NAME-sluice` directory holds no whole state, so Sluice can't know what the log has of this database. Nothing was changed.",
    normal: "Never. A kill or a power loss leaves the state before the last one.",
    remedy:
      "Move the `.NAME-sluice` directory away and start with `--adopt`: the log is restored, and the file that is there now goes to the quarantine.",
  },
  "SLU-2015": {
    title: "The database has another page size than its log",
    meaning:
      "The file was replaced by one with another page size. One log holds pages of one size only, so Sluice did not touch the log or the file.",
    normal: "When you moved in a database that was made with another page_size.",
    remedy:
      "Set the page size to that of the log (`PRAGMA journal_mode=delete; PRAGMA page_size=…; VACUUM`), or give the database a new, empty store path and delete its state directory.",
  },
  "SLU-2016": {
    title: "Not a SQLite database",
    meaning: "The file has content, but doesn't begin as a SQLite database does. It was not touched.",
    normal: "Never.",
    remedy: "Check the path in the configuration; in a directory, a narrower `pattern` leaves other files out.",
  },
  "SLU-2017": {
    title: "An encrypted database",
    meaning:
      "The file looks like a database that was encrypted as a whole (SQLCipher, SEE). Sluice reads pages and the WAL as SQLite writes them and can't look after it.",
    normal: "Never.",
    remedy: "Encrypt the disk and the store (SSE) instead, and keep the database itself plain.",
  },
  "SLU-2018": {
    title: "A change can't be read any more",
    meaning:
      "Pages of a commit were asked for after the WAL had begun anew. Whoever follows this database goes on from the log's records, or compares pages.",
    normal: "For a replica that is far behind.",
    remedy: "Nothing: the replica catches up in another way.",
  },
  "SLU-2019": {
    title: "A change has another checksum than it should",
    meaning:
      "After a change that came from the primary, or from the log, this copy's checksum would not be the one that came with it. The change was not published; the database is compared with the primary page by page and what differs is fetched.",
    normal: "After a disk fault, or when something wrote to the replica's file behind Sluice's back.",
    remedy:
      "Nothing at once. If it comes again, check the machine's disk and memory, and what else writes to the file.",
  },
  "SLU-2020": {
    title: "Something else wrote to a replica",
    meaning:
      "A commit appeared in the WAL of a replica that Sluice did not write, although the gate was closed. Capture has ended; the database is compared with the primary again, and its own version of what differs goes to the quarantine.",
    normal: "Never while Sluice runs. Only programs that go around SQLite's locks can do it.",
    remedy:
      "Find the program: one with `vfs=unix-none`, `locking_mode=EXCLUSIVE` on a network disk, or a copy made over the live file. `sluice quarantine list` shows what it wrote.",
  },
  "SLU-2021": {
    title: "A replica's database is at an unknown state",
    meaning:
      "The machine lost power, or the disk did, while this copy followed a primary: its pages are none of the states that it has had. It may be older than the log, so it can't become the primary's database.",
    normal: "After a power loss on a replica.",
    remedy: "Nothing: the copy is compared with the primary, or restored from the log.",
  },
  "SLU-2024": {
    title: "The state of a database was written by another version",
    meaning:
      "The file `state` in the database's `.NAME-sluice` directory has a format that this version of Sluice doesn't know. The message names both. Nothing was changed.",
    normal: "After an upgrade over a version whose format is no longer read, and after going back to an older one.",
    remedy:
      "Start the version that wrote it and stop it cleanly, so that everything is in the store. Then move the `.NAME-sluice` directory away and start this one with `--adopt`: the log is restored, and the file that is there goes to the quarantine.",
  },
} as const;

/** Codes SLU-5000 to SLU-5099: LTX files. */
export const ltxCodes = {
  "SLU-5000": {
    title: "Internal error (LTX)",
    meaning: "Sluice was about to write an LTX file that its own rules exclude. It stopped before it could do harm.",
    normal: "Never.",
    remedy: "Please report it with the log around this line; the data on disk and in the store was left as it is.",
  },
  "SLU-5001": {
    title: "Damaged LTX file",
    meaning:
      "A file of the log is cut off, or its bytes don't match its checksum or the format. Nothing of it was put into a database.",
    normal: "Never. A file that is still being uploaded can't be seen in a store.",
    remedy:
      "Restore to an earlier TXID or time with `sluice restore --txid` or `--timestamp`; `sluice ltx --level all` lists what there is. Check the store and the disk it is on.",
  },
  "SLU-5002": {
    title: "Damaged page in an LTX file",
    meaning:
      "The compressed content of a page can't be decompressed to a page. Nothing of the file was put into a database.",
    normal: "Never.",
    remedy:
      "Restore to an earlier TXID or time with `sluice restore --txid` or `--timestamp`. Check the store and the disk it is on.",
  },
  "SLU-5003": {
    title: "LTX files that don't follow each other",
    meaning:
      "Files that were to be merged leave a gap between their TXIDs, or have other page sizes. Nothing was merged.",
    normal: "Never.",
    remedy:
      "`sluice ltx --level all` shows which TXIDs are covered. A snapshot, which Sluice makes at its next start, closes a gap.",
  },
} as const;

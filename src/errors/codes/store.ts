/** Codes SLU-3xxx: object stores. */
export const storeCodes = {
  "SLU-3001": {
    title: "Not a store's URL",
    meaning: "A store is named by a URL such as file:///backup/app or s3://bucket/path; this text is none.",
    normal: "Never.",
    remedy: "Correct the `store` in the configuration or on the command line.",
  },
  "SLU-3002": {
    title: "A kind of store that this version doesn't have",
    meaning: "The URL's scheme is known, but stores of this kind are not part of this version of Sluice.",
    normal: "Never.",
    remedy: "Use a directory (file://) or anything that speaks S3 (s3://…?endpoint=…).",
  },
  "SLU-3003": {
    title: "Settings of a store that don't fit",
    meaning: "A setting of a store is malformed, out of range, or contradicts another one. Nothing was sent.",
    normal: "Never.",
    remedy: "Correct the setting named, in the configuration, the store's URL or the environment.",
  },
  "SLU-3004": {
    title: "A store without conditional writes",
    meaning:
      "The store let two writers create one object, or didn't list it at once. Sluice can't keep two machines from writing one log there: a node of a cluster that changes its primary by itself refuses it, a lone node or a cluster with lease `static` goes on with this warning.",
    normal: "With S3 servers that don't know `If-None-Match: *`.",
    remedy:
      "For a cluster use a store that passes, or lease type `static`. Otherwise make sure that only one Sluice ever writes to it.",
  },
  "SLU-3101": {
    title: "The store can't be reached",
    meaning:
      "A request had no answer, or the store said that it can't serve now. It was tried several times where that is safe.",
    normal:
      "For a while, when the network or the store has trouble: Sluice keeps everything locally and goes on trying.",
    remedy: "Check the network, the endpoint and the store's own status.",
  },
  "SLU-3102": {
    title: "The store refuses access",
    meaning:
      "The credentials are missing or wrong, or don't allow what Sluice must do: list, read, write and delete objects.",
    normal: "Never.",
    remedy: "Check the credentials and the permissions of the bucket or directory.",
  },
  "SLU-3103": {
    title: "The store is full",
    meaning: "There is no room left in the store. What was to be written is still on this machine.",
    normal: "Never.",
    remedy: "Make room; Sluice tries again by itself.",
  },
  "SLU-3104": {
    title: "The store failed",
    meaning: "The store answered with an error that Sluice has no better name for.",
    normal: "Never.",
    remedy: "The message has the store's own words.",
  },
  "SLU-3105": {
    title: "No such bucket",
    meaning: "The bucket in the store's URL doesn't exist, or not at this endpoint. Sluice doesn't create buckets.",
    normal: "Never.",
    remedy: "Create the bucket, or correct the URL, the endpoint or the region.",
  },
  "SLU-3404": {
    title: "No such object",
    meaning: "An object that was asked for isn't in the store.",
    normal: "When it was compacted between a listing and a read; the reader then plans again.",
    remedy: "`sluice ltx --level all` lists what there is.",
  },
} as const;

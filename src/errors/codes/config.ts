/** Codes SLU-1xxx: config. */
export const configCodes = {
  "SLU-1000": {
    title: "Internal error (config)",
    meaning: "Sluice met a state that its own rules exclude. It stopped before it could do harm.",
    normal: "Never.",
    remedy: "Please report it with the log around this line; the data on disk and in the store was left as it is.",
  },
} as const;

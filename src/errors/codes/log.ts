/** Codes SLU-4xxx: log. */
export const logCodes = {
  "SLU-4000": {
    title: "Internal error (log)",
    meaning: "Sluice met a state that its own rules exclude. It stopped before it could do harm.",
    normal: "Never.",
    remedy: "Please report it with the log around this line; the data on disk and in the store was left as it is.",
  },
} as const;

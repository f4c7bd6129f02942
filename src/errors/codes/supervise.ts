/** Codes SLU-6xxx: supervise. */
export const superviseCodes = {
  "SLU-6000": {
    title: "Internal error (supervise)",
    meaning: "Sluice met a state that its own rules exclude. It stopped before it could do harm.",
    normal: "Never.",
    remedy: "Please report it with the log around this line; the data on disk and in the store was left as it is.",
  },
} as const;

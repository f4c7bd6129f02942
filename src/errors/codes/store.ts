/** Codes SLU-3xxx: store. */
export const storeCodes = {
  "SLU-3000": {
    title: "Internal error (store)",
    meaning: "Sluice met a state that its own rules exclude. It stopped before it could do harm.",
    normal: "Never.",
    remedy: "Please report it with the log around this line; the data on disk and in the store was left as it is.",
  },
} as const;

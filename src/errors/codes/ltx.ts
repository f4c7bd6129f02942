/** Codes SLU-5xxx: ltx. */
export const ltxCodes = {
  "SLU-5000": {
    title: "Internal error (ltx)",
    meaning: "Sluice met a state that its own rules exclude. It stopped before it could do harm.",
    normal: "Never.",
    remedy: "Please report it with the log around this line; the data on disk and in the store was left as it is.",
  },
} as const;

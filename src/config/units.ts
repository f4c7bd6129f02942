import { z } from "zod";
import { parseDuration, parseSize } from "./duration.ts";

/** A duration in a configuration, in ms. A bare number would not say its unit. */
export const duration = z
  .union([z.string(), z.number()])
  .transform((value, context) => {
    const ms = parseDuration(String(value));
    if (ms !== undefined) return ms;
    context.addIssue({ code: "custom", message: `"${value}" is not a duration such as 1s, 5m or 24h` });
    return z.NEVER;
  })
  .meta({ format: "duration" });

/** A size in a configuration, in bytes. */
export const size = z
  .union([z.string(), z.number()])
  .transform((value, context) => {
    const bytes = parseSize(String(value));
    if (bytes !== undefined) return bytes;
    context.addIssue({ code: "custom", message: `"${value}" is not a size such as 10MB or 64MiB` });
    return z.NEVER;
  })
  .meta({ format: "size" });

import { createHmac, randomBytes } from "node:crypto";
import type { Config } from "../config/config.ts";
import { bootId } from "../database/boot.ts";

/**
 * With what front doors sign what they tell each other. A cluster without a secret is on one machine, where everybody may
 * ask its nodes anything; its front doors can stand open to the world all the same, so theirs is something that only
 * this machine's programs know. A lone node tells nobody anything.
 */
export function doorSecret({ secret, cluster }: Pick<Config, "secret" | "cluster">): string {
  if (secret !== undefined) return secret;
  if (cluster === undefined) return randomBytes(32).toString("hex");
  return createHmac("sha256", bootId()).update("sluice on one machine").digest("hex");
}

import { Command } from "commander";
import { ask } from "../../admin/client.ts";
import type { Promoted } from "../../admin/promote.ts";
import { configOption, jsonOption } from "../options.ts";
import { ownDatabase } from "../own-database.ts";
import { SluiceError } from "../../errors/error.ts";

const LIMIT_MS = 65_000;

interface Flags {
  readonly config?: string;
  readonly json?: boolean;
  readonly force?: boolean;
}

export function command(): Command {
  return new Command("promote")
    .description(
      "Makes this node, or NODE, the primary: the present one closes its gates, stores everything, and hands over. " +
        "Requests wait meanwhile; none fails.",
    )
    .argument("[node]", "a node's name; default: the node that runs here")
    .option("--force", "this node takes over although members that must agree are gone; their last writes may be lost")
    .addOption(configOption())
    .addOption(jsonOption())
    .addHelpText("after", "\nExamples:\n  $ sluice promote\n  $ sluice promote node-2 --json")
    .action(async (node: string | undefined, { config, json, force = false }: Flags) => {
      if (force && node !== undefined) throw new SluiceError("SLU-1000", "--force is for the node that runs here");
      const body = { node, force };
      const question = { method: "POST", path: "/v1/promote", body, limitMs: LIMIT_MS } as const;
      const answer = await ask<Promoted>(ownDatabase(config), question);
      if (json) console.log(JSON.stringify(answer));
      else console.log(`${answer.primary} is the primary (${Math.round(answer.tookMs)} ms)`);
    });
}

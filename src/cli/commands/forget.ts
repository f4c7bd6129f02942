import path from "node:path";
import { Command } from "commander";
import { readOwner } from "../../admin/owner.ts";
import { SluiceError } from "../../errors/error.ts";
import { logContext } from "../../log/context.ts";
import { endLog } from "../../log/identity.ts";
import { configOption, jsonOption } from "../options.ts";
import { stopSignal } from "../stop-signal.ts";
import { findTarget } from "../target.ts";

interface Flags {
  readonly config?: string;
  readonly json?: boolean;
}

export function command(): Command {
  return new Command("forget")
    .description(
      "Ends a database's log on purpose: from then on no Sluice writes to it or restores from it by itself, so a deleted " +
        "database stays deleted. The log's files stay, and `sluice restore` reads them. Stop Sluice on every node first.",
    )
    .argument("<db|url>", "a database of the configuration, or a store's URL")
    .addOption(configOption())
    .addOption(jsonOption())
    .addHelpText("after", "\nExamples:\n  $ sluice forget tenants/old.db\n  $ sluice forget s3://bucket/app --json")
    .action(async (given: string, flags: Flags) => {
      assertNobody(given);
      const { store, prefix } = await findTarget(given, flags.config);
      using stop = stopSignal();
      try {
        const context = logContext(store, { prefix });
        if (!(await endLog(context, stop.signal)))
          throw new SluiceError("SLU-4501", `${context.url} has no log of Sluice's to end`);
        if (flags.json) console.log(JSON.stringify({ ended: true, url: context.url }));
        else console.log(`${context.url}: the log has ended; its files are still there`);
      } finally {
        await store.close();
      }
    });
}

/** Who looks after it would go on writing until its next start. */
function assertNobody(given: string): void {
  const owner = given.includes("://") ? undefined : readOwner(path.resolve(given));
  if (owner !== undefined)
    throw new SluiceError("SLU-1017", `process ${owner.pid} looks after ${given}, and would write to its log`);
}

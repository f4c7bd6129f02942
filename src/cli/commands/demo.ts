import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { Command, InvalidArgumentError } from "commander";
import { DemoNode } from "../demo/node.ts";
import { type Row, tell } from "../demo/story.ts";
import { jsonOption } from "../options.ts";
import { table } from "../output.ts";

interface Flags {
  readonly nodes: number;
  readonly keep?: boolean;
  readonly json?: boolean;
}

export function command(): Command {
  return new Command("demo")
    .description(
      "A cluster on this machine, with a small application and a directory as store: writes through replicas, the " +
        "primary killed, handovers under load, one disk and then all disks lost. Ends with a table.",
    )
    .option("--nodes <n>", "how many nodes, 2 to 8", parseNodes, 3)
    .option("--keep", "leave the cluster running at the end, until Ctrl-C")
    .addOption(jsonOption())
    .addHelpText("after", "\nExamples:\n  $ sluice demo\n  $ sluice demo --nodes 5 --keep")
    .action(async (flags: Flags) => {
      // What is still being told when somebody asks to stop is not waited for.
      process.exit(await run(flags));
    });
}

function parseNodes(text: string): number {
  const count = Number(text);
  if (Number.isInteger(count) && count >= 2 && count <= 8) return count;
  throw new InvalidArgumentError("2 to 8 nodes.");
}

async function run({ nodes: count, keep = false, json = false }: Flags): Promise<number> {
  const dir = mkdtempSync(path.join(os.tmpdir(), "sluice-demo-"));
  const nodes = Array.from({ length: count }, (_, i) => new DemoNode(dir, `node-${i + 1}`));
  const rows: Row[] = [];
  const stopped = stopSignal();
  const startedMs = performance.now();
  const say = (text: string): void => {
    if (!json) console.log(`${((performance.now() - startedMs) / 1000).toFixed(1).padStart(5)} s  ${text}`);
  };
  let failure: Error | undefined;
  try {
    await Promise.race([tell({ nodes, say, row: (row) => void rows.push(row) }), stopped.promise]);
  } catch (error) {
    failure = error instanceof Error ? error : new Error(String(error));
  }
  const ok = failure === undefined && rows.every((row) => row.ok !== false);
  report(rows, failure, json);
  if (keep && failure === undefined) {
    for (const node of nodes) console.log(`${node.name}: ${node.door} (process ${node.pid}, ${node.disk})`);
    console.log("Ctrl-C ends it.");
    await stopped.promise.catch(() => undefined);
  }
  await Promise.all(nodes.map((node) => node.close()));
  if (ok || keep) rmSync(dir, { recursive: true, force: true });
  else console.error(`The nodes' logs are in ${dir}.`);
  stopped.forget();
  return ok ? 0 : 1;
}

/** Rejects when somebody asks to stop. */
function stopSignal(): { readonly promise: Promise<never>; readonly forget: () => void } {
  const { promise, reject } = Promise.withResolvers<never>();
  promise.catch(() => undefined);
  const onSignal = (): void => reject(new Error("stopped"));
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const name of signals) process.on(name, onSignal);
  return {
    promise,
    forget: () => {
      for (const name of signals) process.off(name, onSignal);
    },
  };
}

function report(rows: readonly Row[], failure: Error | undefined, json: boolean): void {
  if (json) {
    const error = failure?.message;
    console.log(JSON.stringify({ ok: failure === undefined && rows.every(({ ok }) => ok !== false), rows, error }));
    return;
  }
  const cells = rows.map(({ what, result, ok }) => [what, result, ok === undefined ? "" : ok ? "held" : "NOT HELD"]);
  console.log(`\n${table(["what", "result", "check"], cells)}`);
  if (failure !== undefined) console.error(failure.message);
}

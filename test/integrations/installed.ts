import { execFile } from "node:child_process";
import { cpSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const root = path.resolve(import.meta.dirname, "../..");
export const tsc = path.join(root, "node_modules/.bin/tsc");

/** Builds this package's `sluice/connect` into a project's `node_modules`, with others from this clone beside it. */
export async function installInto(project: string, ...others: readonly string[]): Promise<void> {
  const modules = path.join(project, "node_modules");
  mkdirSync(path.join(modules, "sluice"), { recursive: true });
  const config = path.join(modules, "sluice/tsconfig.json");
  // As the whole is built, without the rooms that an application doesn't import.
  const build = {
    extends: path.join(root, "tsconfig.build.json"),
    compilerOptions: { outDir: path.join(modules, "sluice/dist"), typeRoots: [path.join(root, "node_modules/@types")] },
    include: [path.join(root, "src/connect")],
  };
  writeFileSync(config, JSON.stringify(build));
  await run(tsc, ["-p", config]);
  cpSync(path.join(root, "package.json"), path.join(modules, "sluice/package.json"));
  for (const name of others) symlinkSync(path.join(root, "node_modules", name), path.join(modules, name));
}

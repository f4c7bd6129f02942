import { execFile } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";

const execFileAsync = promisify(execFile);
export const root = path.resolve(import.meta.dirname, "../..");

interface Locked {
  readonly dev?: boolean;
}

/** What `npm pack` made of this tree. */
export interface Packed {
  readonly tarball: string;
  /** Paths inside of it. */
  readonly files: readonly string[];
}

/** Builds and packs the package into `dir`. */
export async function pack(dir: string): Promise<Packed> {
  mkdirSync(dir, { recursive: true });
  const { stdout } = await execFileAsync("npm", ["pack", "--json", "--pack-destination", dir], { cwd: root });
  // What the build prints comes before it.
  const [packed] = Object.values(JSON.parse(stdout.slice(stdout.search(/^[[{]/m))) as Record<string, unknown>) as [
    { filename: string; files: { path: string }[] },
  ];
  return { tarball: path.join(dir, packed.filename), files: packed.files.map((file) => file.path) };
}

/**
 * Installs a packed package into `dir`, as its users have it: without this project's development dependencies, and
 * without any script of a package. What it needs has the versions of this project's lock file, so that npm finds it in
 * its cache; what isn't there comes from the registry.
 */
export async function install(tarball: string, dir: string): Promise<void> {
  const lock = JSON.parse(readFileSync(path.join(root, "package-lock.json"), "utf8")) as {
    readonly packages: Readonly<Record<string, Locked>>;
  };
  const { "": own, ...others } = lock.packages;
  const needed = Object.entries(others).filter(([, { dev }]) => dev !== true);
  const dependencies = { sluice: `file:${tarball}` };
  const { devDependencies: _, ...sluice } = own as Record<string, unknown>;
  const packages = {
    "": { dependencies },
    "node_modules/sluice": { ...sluice, resolved: `file:${tarball}` },
    ...Object.fromEntries(needed),
  };
  mkdirSync(dir, { recursive: true });
  writeFileSync(path.join(dir, "package.json"), JSON.stringify({ private: true, dependencies }));
  writeFileSync(path.join(dir, "package-lock.json"), JSON.stringify({ lockfileVersion: 3, requires: true, packages }));
  await execFileAsync("npm", ["ci", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund"], { cwd: dir });
}

/**
 * Builds the self-contained executable for Linux x64: Node.js with the installed package inside.
 *
 * usage: node packaging/executable.ts OUT     writes the file OUT, some 150 MB; needs npm's registry
 *
 * It is Node.js' own single executable application: `boot.cjs`, and as one asset all files of the package and of what it
 * depends on, which `boot.cjs` puts into the user's cache at the first start.
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { chmodSync, copyFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { serialize } from "node:v8";
import { zstdCompressSync } from "node:zlib";

const POSTJECT = "postject@1.0.0-alpha.6";
/** Of other platforms, for compilers, and for people. */
const UNWANTED =
  /better-sqlite3\/(deps|src)\/|prebuilds\/(?!linux-x64\.node)|koffi\/(vendor|doc)\/|\.(md|ts|map|gyp|c|cc|cpp|h|hh)$|(?:darwin|win32|freebsd|openbsd|musl|arm64|ia32|riscv64|loong64)[^/]*\//;

const [out] = process.argv.slice(2);
if (out === undefined) throw new Error("usage: node packaging/executable.ts OUT");
const root = path.resolve(import.meta.dirname, "..");
const dir = mkdtempSync(path.join(os.tmpdir(), "sluice-executable-"));
const npm = (cwd: string, ...args: string[]): string => execFileSync("npm", args, { cwd, encoding: "utf8" });

try {
  npm(root, "pack", "--silent", "--pack-destination", dir);
  const tarball = readdirSync(dir).find((name) => name.endsWith(".tgz"))!;
  writeFileSync(path.join(dir, "package.json"), "{}\n");
  npm(dir, "install", "--silent", "--no-audit", "--no-fund", "--prefer-offline", `./${tarball}`);

  const modules = path.join(dir, "node_modules");
  const files = new Map<string, Buffer>();
  for (const entry of readdirSync(modules, { recursive: true, withFileTypes: true })) {
    const file = path.join(entry.parentPath, entry.name);
    const name = path.relative(modules, file);
    if (entry.isFile() && !name.startsWith(".") && !UNWANTED.test(name)) files.set(name, readFileSync(file));
  }
  const packed = zstdCompressSync(serialize(files));
  const id = createHash("sha256").update(packed).digest("hex").slice(0, 16);
  writeFileSync(path.join(dir, "files"), packed);
  writeFileSync(path.join(dir, "id"), id);

  const config = {
    main: path.join(import.meta.dirname, "boot.cjs"),
    output: path.join(dir, "blob"),
    disableExperimentalSEAWarning: true,
    execArgv: ["--max-semi-space-size=4", "--disable-warning=ExperimentalWarning"],
    assets: { files: path.join(dir, "files"), id: path.join(dir, "id") },
  };
  writeFileSync(path.join(dir, "sea.json"), JSON.stringify(config));
  execFileSync(process.execPath, ["--experimental-sea-config", path.join(dir, "sea.json")], { stdio: "ignore" });
  copyFileSync(process.execPath, out);
  chmodSync(out, 0o755);
  const fuse = ["--sentinel-fuse", "NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2"];
  npm(dir, "exec", "--yes", "--silent", "--", POSTJECT, path.resolve(out), "NODE_SEA_BLOB", config.output, ...fuse);
  console.log(`${out}: ${files.size} files inside, ${(packed.length / 1e6).toFixed(0)} MB compressed`);
} finally {
  rmSync(dir, { recursive: true, force: true });
}

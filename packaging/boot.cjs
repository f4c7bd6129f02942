/**
 * The beginning of the self-contained executable: puts the files inside it into the user's cache, unless an earlier start
 * has, and goes on with the program there. Sluice starts its guardian, and the demo its nodes, as this executable with a
 * file of that place as first argument.
 */
const { mkdirSync, mkdtempSync, existsSync, renameSync, rmSync, writeFileSync } = require("node:fs");
const { createRequire, enableCompileCache } = require("node:module");
const os = require("node:os");
const path = require("node:path");
const { getAsset, getRawAsset } = require("node:sea");
const { deserialize } = require("node:v8");
const { zstdDecompressSync } = require("node:zlib");

function cache() {
  const { XDG_CACHE_HOME, HOME } = process.env;
  const base = XDG_CACHE_HOME || (HOME ? path.join(HOME, ".cache") : os.tmpdir());
  return path.join(base, "sluice");
}

/** Whole or not at all: a directory that is renamed into its place. */
function unpack(place) {
  mkdirSync(path.dirname(place), { recursive: true, mode: 0o700 });
  const making = mkdtempSync(`${place}-`);
  for (const [name, bytes] of deserialize(zstdDecompressSync(Buffer.from(getRawAsset("files"))))) {
    const file = path.join(making, "node_modules", name);
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, bytes);
  }
  writeFileSync(path.join(making, "start.cjs"), "exports.start = (url) => import(url);\n");
  try {
    renameSync(making, place);
  } catch (error) {
    rmSync(making, { recursive: true });
    // Another process was faster.
    if (!existsSync(place)) throw error;
  }
}

const id = getAsset("id", "utf8");
// Options for Node.js may stand before the file; whoever is started so need not have the environment that says where it is.
const at = process.argv.findIndex((word, i) => i >= 2 && !word.startsWith("--"));
const isOwn = at > 0 && process.argv[at].includes(`/${id}/node_modules/sluice/`);
const place = isOwn ? process.argv[at].slice(0, process.argv[at].indexOf("/node_modules/")) : path.join(cache(), id);
if (!existsSync(place)) unpack(place);
enableCompileCache(path.join(path.dirname(place), "compiled"));

const main = isOwn ? process.argv[at] : path.join(place, "node_modules/sluice/dist/cli/main.js");
process.argv.splice(1, isOwn ? at : 1, main);
void createRequire(path.join(place, "start.cjs"))("./start.cjs").start(main);

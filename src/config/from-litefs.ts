import { isMap, shown, type Converted, type Map } from "./converted.ts";

/** What Sluice does by itself or always. */
const NOT_NEEDED = new Set(["data", "fuse", "skip-sync", "strict-verify", "exit-on-error", "tracing"]);

/** A litefs.yml, for one node: a lease and a front door stand in comments. */
export function fromLiteFs(source: Map): Converted {
  const fuse = isMap(source["fuse"]) ? source["fuse"] : {};
  const dir = typeof fuse["dir"] === "string" ? fuse["dir"] : "/litefs";
  const remarks = [
    `LiteFS mounted ${dir}; Sluice looks after databases in an ordinary directory. Copy each one there: litefs export.`,
    "LiteFS kept no log in an object store: choose a place for it.",
  ];
  const config: Map = {
    dbs: [{ dir, pattern: "*", store: `file://${dir}-store` }],
  };
  const { exec, log } = source;
  if (typeof exec === "string") config["exec"] = exec;
  else if (Array.isArray(exec))
    config["exec"] = (exec as unknown[]).map((entry, i) => convertExec(entry, i, exec.length));
  if (isMap(log)) {
    const type = log["format"] === "json" ? "json" : "text";
    config["logging"] = { type, ...(log["debug"] === true && { level: "debug" }) };
  }
  for (const [key, value] of Object.entries(source))
    if (key !== "exec" && key !== "log" && !NOT_NEEDED.has(key))
      remarks.push(`for several nodes, not part of this version: ${shown(key, value)}`);
  return { config, remarks };
}

/** LiteFS waits for every command but the last. */
function convertExec(entry: unknown, i: number, length: number): Map {
  const map = isMap(entry) ? entry : { cmd: entry };
  return {
    cmd: map["cmd"],
    ...(map["if-candidate"] === true && { on: "primary" }),
    ...(i < length - 1 && { wait: true }),
  };
}

import { fileURLToPath } from "node:url";
import type { StoreSettings } from "../config/config.ts";
import { SluiceError } from "../errors/error.ts";
import { DirectoryStore } from "./directory.ts";
import type { ObjectStore } from "./store.ts";

export type { StoreSettings } from "../config/config.ts";

/** Schemes that Sluice knows, and this version can't use. */
const LATER = new Set(["gs:", "abs:", "sftp:", "webdav:", "webdavs:", "nats:", "oss:"]);

/**
 * The store that a URL names: `file:///path` or a plain path, `s3://bucket/path?endpoint=…&region=…`. S3's code is
 * loaded only for an S3 URL. Throws SLU-3001 for no URL, SLU-3002 for a kind that this version doesn't have.
 */
export async function openStore(url: string, settings: StoreSettings = {}): Promise<ObjectStore> {
  if (url.startsWith("/") || url.startsWith("./") || url.startsWith("../")) return new DirectoryStore(url);
  let parsed: URL;
  try {
    parsed = new URL(url);
  } catch {
    // Node.js's error has the whole of it.
    throw new SluiceError("SLU-3001", `"${redact(url)}" is not a store's URL`);
  }
  if (parsed.protocol === "file:") return new DirectoryStore(directoryOf(parsed, url));
  if (parsed.protocol === "s3:") {
    const { openS3 } = await import("./s3.ts");
    return openS3(parsed, settings);
  }
  const known = LATER.has(parsed.protocol);
  const what = known
    ? `${parsed.protocol}// stores are not part of this version`
    : `unknown scheme ${parsed.protocol}//`;
  throw new SluiceError(known ? "SLU-3002" : "SLU-3001", `${redact(url)}: ${what}`);
}

function directoryOf(parsed: URL, url: string): string {
  // `file://data/app` is a common slip for `file:///data/app`: the first part would be taken for a machine's name.
  if (parsed.host !== "")
    throw new SluiceError("SLU-3001", `${url}: a directory's URL has three slashes: file:///path`);
  try {
    return fileURLToPath(parsed);
  } catch (cause) {
    throw new SluiceError("SLU-3001", `${url}: not a directory's URL: ${(cause as Error).message}`, { cause });
  }
}

/**
 * A URL as it may be shown: without user, password and query. A user may have an `@` in it, and a password a `/`, that
 * nobody has escaped.
 */
export function redact(url: string): string {
  const shown = url.replace(/\?.*$/s, "");
  if (!URL.canParse(url)) return shown.replace(/\/\/.*@/s, "//");
  const { protocol, host, pathname, username, password } = new URL(url);
  return username === "" && password === "" ? shown : `${protocol}//${host}${pathname}`;
}

import { SluiceError } from "../errors/error.ts";

/** One page of a listing. */
export interface ListPage {
  readonly objects: readonly { readonly key: string; readonly sizeBytes: number; readonly modifiedMs: number }[];
  /** Where the next page begins; undefined on the last one. */
  readonly next: string | undefined;
}

/** What an S3 server says about an error. */
export interface S3Fault {
  readonly code: string;
  readonly message: string;
}

/**
 * S3's replies are flat: elements without attributes that matter, which hold either text or such elements. So a reply
 * is read by the names of its elements. Source: Amazon S3 API reference, ListObjectsV2 (with `encoding-type=url`).
 */
export function parseListPage(xml: string): ListPage {
  if (!xml.includes("<ListBucketResult"))
    throw new SluiceError("SLU-3104", "the reply to a listing is not one of S3's");
  // A shorter listing would be believed: objects that aren't listed don't exist.
  if (!xml.includes("</ListBucketResult>")) throw new SluiceError("SLU-3101", "the reply to a listing ends early");
  const decode = text(xml, "EncodingType") === "url" ? decodeKey : (key: string) => key;
  const objects = [...xml.matchAll(/<Contents>(.*?)<\/Contents>/gs)].map(([, content = ""]) => ({
    key: decode(text(content, "Key") ?? ""),
    sizeBytes: Number(text(content, "Size")),
    modifiedMs: Date.parse(text(content, "LastModified") ?? ""),
  }));
  if (objects.some(({ key, sizeBytes, modifiedMs }) => key === "" || !(sizeBytes >= 0) || Number.isNaN(modifiedMs)))
    throw new SluiceError("SLU-3104", "the reply to a listing has an object without name, size or time");
  const isCut = text(xml, "IsTruncated") === "true";
  const next = text(xml, "NextContinuationToken");
  if (isCut && next === undefined)
    throw new SluiceError("SLU-3104", "the reply to a listing is cut and doesn't say where it goes on");
  return { objects, next: isCut ? next : undefined };
}

/** The error in a reply, or undefined when it has none. */
export function parseFault(xml: string): S3Fault | undefined {
  if (!/<Error[\s>]/.test(xml)) return undefined;
  return { code: text(xml, "Code") ?? "Unknown", message: text(xml, "Message") ?? "" };
}

/** The objects that a DeleteObjects request did not delete. */
export function parseDeleteFaults(xml: string): readonly S3Fault[] {
  return [...xml.matchAll(/<Error>.*?<\/Error>/gs)].map(([error]) => parseFault(error)!);
}

/** The text of the first element of that name. */
export function text(xml: string, name: string): string | undefined {
  const found = new RegExp(`<${name}(?: [^>]*)?>([^<]*)</${name}>`).exec(xml)?.[1];
  return found === undefined ? undefined : unescapeXml(found);
}

export function escapeXml(value: string): string {
  return value.replace(/[&<>"']|[^\t\n\x20-\uFFFF]/g, (char) => `&#${char.charCodeAt(0)};`);
}

const NAMED: Readonly<Record<string, string>> = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'" };

function unescapeXml(value: string): string {
  return value.replace(/&(?:#(\d+)|#x([0-9a-fA-F]+)|(\w+));/g, (all, decimal, hex, name) => {
    if (decimal !== undefined) return character(Number(decimal));
    if (hex !== undefined) return character(Number.parseInt(hex, 16));
    return NAMED[name as string] ?? all;
  });
}

/** What is no character is shown as one that says so. */
function character(code: number): string {
  return code <= 0x10ffff ? String.fromCodePoint(code) : "\uFFFD";
}

function decodeKey(key: string): string {
  try {
    return decodeURIComponent(key.replaceAll("+", "%20"));
  } catch (cause) {
    throw new SluiceError("SLU-3104", "the reply to a listing has a key that is not URL-encoded", { cause });
  }
}

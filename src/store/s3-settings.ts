import { isIP } from "node:net";
import { createHash } from "node:crypto";
import { SluiceError } from "../errors/error.ts";
import type { StoreSettings } from "../config/config.ts";

/** Where an S3 store is and how it wants to be spoken to; nothing of it but bucket and prefix may be shown. */
export interface S3Settings {
  readonly bucket: string;
  /** Begins every key: empty, or ending with a slash. */
  readonly prefix: string;
  /** Undefined: Amazon's own, which depends on the region. */
  readonly endpoint: URL | undefined;
  readonly isPathStyle: boolean;
  /** Undefined: to be asked for at Amazon's. */
  readonly region: string | undefined;
  /** Undefined: the usual chain (environment, profile, web identity, container, instance). */
  readonly credentials: StaticCredentials | undefined;
  readonly isCertificateChecked: boolean;
  readonly isPayloadSigned: boolean;
  readonly isContentMd5Sent: boolean;
  readonly partSizeBytes: number;
  readonly concurrency: number;
  /** Sent with the creation of an object. */
  readonly createHeaders: Readonly<Record<string, string>>;
  /** Sent with every reading and writing of an object's bytes (a key that the customer keeps). */
  readonly keyHeaders: Readonly<Record<string, string>>;
  /** Sent with each request, for one provider or another. */
  readonly extraHeaders: Readonly<Record<string, string>>;
}

export interface StaticCredentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** S3's least size of a part that is not the last one. */
const PART_BYTES_MIN = 5 * 1024 * 1024;
const PART_BYTES_MAX = 512 * 1024 * 1024;

/**
 * Settings from a URL `s3://bucket/path?endpoint=…` (its query has Litestream's names, in camel case or with hyphens),
 * the configuration, which wins, and the environment. Throws SLU-3001 without a bucket, SLU-3003 for settings that
 * don't make sense.
 */
export function s3Settings(url: URL, given: StoreSettings, env: Environment): S3Settings {
  const query = parameters(url.searchParams);
  const { bucket, server } = hostOf(url);
  if (bucket === "") throw new SluiceError("SLU-3001", "an S3 store's URL needs a bucket: s3://bucket/path");
  const path = decoded(url.pathname).replace(/^\/+|\/+$/g, "");
  const endpoint = endpointOf(given.endpoint ?? query.get("endpoint") ?? env["LITESTREAM_S3_ENDPOINT"] ?? server);
  const region = given.region ?? query.get("region") ?? env["AWS_REGION"] ?? env["AWS_DEFAULT_REGION"];
  const isR2 = endpoint?.hostname.endsWith(".r2.cloudflarestorage.com") === true;
  const isTigris = endpoint !== undefined && /(^|\.)(tigris\.dev|tigrisfiles\.io)$/.test(endpoint.hostname);
  const customerKey = given.sseCustomerKey ?? query.get("ssecustomerkey");
  const kmsKeyId = given.sseKmsKeyId ?? query.get("ssekmskeyid");
  if (customerKey !== undefined && kmsKeyId !== undefined)
    throw wrong("sse-customer-key and sse-kms-key-id exclude each other");
  const storageClass = given.storageClass ?? query.get("storageclass");
  return {
    bucket,
    prefix: path === "" ? "" : `${path}/`,
    endpoint,
    isPathStyle:
      given.forcePathStyle ?? flag(query, "forcepathstyle") ?? (endpoint !== undefined || bucket.includes(".")),
    region: region ?? (endpoint === undefined ? undefined : isR2 || isTigris ? "auto" : "us-east-1"),
    credentials: credentialsOf(url, given, env),
    isCertificateChecked: !(given.skipVerify ?? flag(query, "skipverify") ?? false),
    isPayloadSigned: given.signPayload ?? flag(query, "signpayload") ?? true,
    isContentMd5Sent: flag(query, "requirecontentmd5") ?? !isTigris,
    partSizeBytes: partSize(given.partSizeBytes ?? bytes(query.get("partsize"))),
    concurrency: given.concurrency ?? whole(query.get("concurrency")) ?? (isR2 ? 2 : 5),
    createHeaders: {
      ...(storageClass !== undefined && { "x-amz-storage-class": storageClass }),
      ...(kmsKeyId !== undefined && {
        "x-amz-server-side-encryption": "aws:kms",
        "x-amz-server-side-encryption-aws-kms-key-id": kmsKeyId,
      }),
    },
    keyHeaders: customerKey === undefined ? {} : customerKeyHeaders(customerKey, endpoint),
    extraHeaders: isTigris ? { "x-tigris-consistent": "true" } : {},
  };
}

/** `s3://bucket.server:9000/path` names a server, too, as in Litestream. */
function hostOf({ hostname, port }: URL): { readonly bucket: string; readonly server: string | undefined } {
  const dot = hostname.indexOf(".");
  if (port === "" || dot < 0) return { bucket: decoded(hostname), server: undefined };
  return { bucket: hostname.slice(0, dot), server: `http://${hostname.slice(dot + 1)}:${port}` };
}

function named(part: string): string | undefined {
  return part === "" ? undefined : decoded(part);
}

/** Throws SLU-3003 without the text: it may be a password. */
function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw wrong("a % in the URL is written %25, unless two hex digits follow that make a character");
  }
}

/** Query parameters by their lower-case names without hyphens: `force-path-style` is `forcePathStyle`. */
function parameters(query: URLSearchParams): Map<string, string> {
  return new Map([...query].map(([name, value]) => [name.replaceAll("-", "").toLowerCase(), value]));
}

function endpointOf(text: string | undefined): URL | undefined {
  if (text === undefined || text === "") return undefined;
  try {
    // Litestream takes `minio:9000` for plain HTTP on a private network, and any other bare name for HTTPS.
    const url = new URL(/^https?:\/\//.test(text) ? text : `${isPlainHost(text) ? "http" : "https"}://${text}`);
    if (url.username === "" && url.password === "" && url.search === "") return url;
  } catch {
    // Said below, without the text: it may hold a password.
  }
  throw wrong("endpoint must be a URL such as https://storage.example.com, without user and query");
}

function isPlainHost(text: string): boolean {
  const host = text.replace(/:\d+$/, "");
  return host !== text && (!host.includes(".") || isIP(host) !== 0);
}

function credentialsOf(url: URL, given: StoreSettings, env: Environment): StaticCredentials | undefined {
  const accessKeyId = given.accessKeyId ?? named(url.username) ?? env["LITESTREAM_ACCESS_KEY_ID"];
  const secretAccessKey = given.secretAccessKey ?? named(url.password) ?? env["LITESTREAM_SECRET_ACCESS_KEY"];
  if ((accessKeyId === undefined) !== (secretAccessKey === undefined))
    throw wrong("access-key-id and secret-access-key are needed together");
  if (accessKeyId === undefined || secretAccessKey === undefined) return undefined;
  return {
    accessKeyId,
    secretAccessKey,
    ...(given.sessionToken !== undefined && { sessionToken: given.sessionToken }),
  };
}

/** SSE-C: S3 wants the key itself with each request, so plain HTTP is for this machine and private networks only. */
function customerKeyHeaders(key: string, endpoint: URL | undefined): Record<string, string> {
  const raw = Buffer.from(key, "base64");
  if (raw.length !== 32) throw wrong("sse-customer-key must be 32 bytes in base64");
  if (endpoint?.protocol === "http:" && !isPrivateHost(endpoint.hostname))
    throw wrong("sse-customer-key is sent with each request: the endpoint must be https");
  return {
    "x-amz-server-side-encryption-customer-algorithm": "AES256",
    "x-amz-server-side-encryption-customer-key": raw.toString("base64"),
    "x-amz-server-side-encryption-customer-key-md5": createHash("md5").update(raw).digest("base64"),
  };
}

function isPrivateHost(host: string): boolean {
  return (
    !host.includes(".") || /^(127|10|192\.168|172\.(1[6-9]|2\d|3[01]))\./.test(host) || /\.(local|internal)$/.test(host)
  );
}

function flag(query: Map<string, string>, name: string): boolean | undefined {
  const value = query.get(name);
  if (value === undefined) return undefined;
  if (/^(true|1|)$/i.test(value)) return true;
  if (/^(false|0)$/i.test(value)) return false;
  throw wrong(`${name} must be true or false`);
}

function whole(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1 || value > 64) throw wrong("concurrency must be 1 to 64");
  return value;
}

/** "10MB" is 10,000,000 bytes, "10MiB" 10,485,760, a bare number bytes. */
function bytes(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const found = /^(\d+)\s*(?:([kmg])(i?)b?|b)?$/i.exec(text.trim());
  if (found === null) throw wrong("part-size must be a size such as 10MiB");
  const [, digits, unit, binary] = found;
  const power = unit === undefined ? 0 : "kmg".indexOf(unit.toLowerCase()) + 1;
  return Number(digits) * (binary === "" ? 1000 : 1024) ** power;
}

function partSize(size: number | undefined): number {
  if (size === undefined) return PART_BYTES_MIN;
  if (size < PART_BYTES_MIN || size > PART_BYTES_MAX) throw wrong("part-size must be 5 MiB to 512 MiB");
  return size;
}

function wrong(message: string): SluiceError {
  return new SluiceError("SLU-3003", message);
}

import { SluiceError } from "../errors/error.ts";
import type { StoreSettings } from "../config/config.ts";

/** Where a bucket is and how it wants to be talked to, from a URL, its query, and settings. */
export interface S3Config {
  readonly bucket: string;
  /** The store's root within the bucket, without slashes at its ends. */
  readonly path: string;
  /** Scheme and host of the service; undefined for AWS itself. */
  readonly endpoint: URL | undefined;
  readonly region: string | undefined;
  readonly pathStyle: boolean;
  readonly skipVerify: boolean;
  readonly signPayload: boolean;
  readonly storageClass: string | undefined;
  readonly partBytes: number;
  readonly concurrency: number;
  readonly sseCustomerKey: string | undefined;
  readonly sseKmsKeyId: string | undefined;
  readonly credentials: S3Credentials | undefined;
}

export interface S3Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
}

/** S3 takes parts of 5 MiB to 5 GiB, at most 10,000 of them. */
const PART_BYTES_MIN = 5 * 1024 * 1024;
const PART_BYTES = 16 * 1024 * 1024;
const CONCURRENCY = 4;

/**
 * Reads `s3://bucket/path?endpoint=…&region=…&force-path-style=…` and Litestream's other parameters, in both of its
 * spellings; `s3://bucket.host:port/path` names a server, too. Settings fill in what the URL leaves open.
 * Throws SLU-3001.
 */
export function s3Config(url: URL, settings: StoreSettings, env: NodeJS.ProcessEnv = process.env): S3Config {
  const query = (name: string): string | undefined =>
    url.searchParams.get(name) ?? url.searchParams.get(camel(name)) ?? undefined;
  const flag = (name: string): boolean | undefined => {
    const value = query(name);
    return value === undefined ? undefined : value !== "false" && value !== "0";
  };
  const named = query("endpoint") ?? settings.endpoint ?? env["LITESTREAM_S3_ENDPOINT"];
  const host = hostOf(url);
  const endpoint = named ?? host.endpoint;
  const size = query("part-size");
  return {
    bucket: host.bucket,
    path: decodeURIComponent(url.pathname).replace(/^\/+|\/+$/g, ""),
    endpoint: endpoint === undefined ? undefined : endpointUrl(endpoint),
    region: query("region") ?? settings.region ?? env["AWS_REGION"] ?? env["AWS_DEFAULT_REGION"],
    pathStyle: flag("force-path-style") ?? settings.forcePathStyle ?? endpoint !== undefined,
    skipVerify: flag("skip-verify") ?? settings.skipVerify ?? false,
    signPayload: flag("sign-payload") ?? settings.signPayload ?? true,
    storageClass: query("storage-class") ?? settings.storageClass,
    partBytes: Math.max(PART_BYTES_MIN, size === undefined ? (settings.partSizeBytes ?? PART_BYTES) : Number(size)),
    concurrency: Number(query("concurrency") ?? settings.concurrency ?? CONCURRENCY),
    sseCustomerKey: query("sse-customer-key") ?? settings.sseCustomerKey,
    sseKmsKeyId: query("sse-kms-key-id") ?? settings.sseKmsKeyId,
    credentials: credentialsOf(url, settings),
  };
}

function credentialsOf(url: URL, settings: StoreSettings): S3Credentials | undefined {
  const { sessionToken } = settings;
  const accessKeyId = decodeURIComponent(url.username) || settings.accessKeyId;
  const secretAccessKey = decodeURIComponent(url.password) || settings.secretAccessKey;
  if (!accessKeyId || !secretAccessKey) return undefined;
  return { accessKeyId, secretAccessKey, ...(sessionToken !== undefined && { sessionToken }) };
}

function hostOf(url: URL): { readonly bucket: string; readonly endpoint: string | undefined } {
  if (url.hostname === "") throw new SluiceError("SLU-3001", "an S3 URL is s3://BUCKET/PATH; the bucket is missing");
  const dot = url.hostname.indexOf(".");
  if (url.port === "" || dot < 0) return { bucket: url.hostname, endpoint: undefined };
  return { bucket: url.hostname.slice(0, dot), endpoint: `http://${url.hostname.slice(dot + 1)}:${url.port}` };
}

function endpointUrl(text: string): URL {
  try {
    return new URL(text.includes("://") ? text : `https://${text}`);
  } catch (cause) {
    throw new SluiceError("SLU-3001", `"${text}" is not an S3 endpoint`, { cause });
  }
}

function camel(name: string): string {
  return name.replaceAll(/-([a-z])/g, (_all, letter: string) => letter.toUpperCase());
}

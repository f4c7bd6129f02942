import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import type { StaticCredentials } from "./s3-settings.ts";

/** A body that can be sent again: bytes, or a file that doesn't change. */
export type WireBody = Uint8Array | { readonly path: string; readonly sizeBytes: number };

export type Credentials = () => Promise<StaticCredentials>;

const HASH_CHUNK_BYTES = 1024 * 1024;
export const UNSIGNED = "UNSIGNED-PAYLOAD";
export const EMPTY_SHA256 = createHash("sha256").digest("hex");

/**
 * The given credentials, or the usual chain of Amazon's libraries, whose code is loaded when the first request needs
 * it and which fetches new ones before the old ones end.
 */
export function credentialsFrom(given: StaticCredentials | undefined): Credentials {
  if (given !== undefined) return () => Promise.resolve(given);
  let chain: Promise<Credentials> | undefined;
  return async () => {
    chain ??= import("@aws-sdk/credential-provider-node").then(({ defaultProvider }) => defaultProvider());
    return (await chain)();
  };
}

/** SHA-256 of a body, in hex; a file is read in pieces, so that the event loop never waits long. */
export async function bodySha256(body: WireBody): Promise<string> {
  const hash = createHash("sha256");
  if (body instanceof Uint8Array) return hash.update(body).digest("hex");
  for await (const chunk of createReadStream(body.path, { highWaterMark: HASH_CHUNK_BYTES, end: body.sizeBytes }))
    hash.update(chunk as Buffer);
  return hash.digest("hex");
}

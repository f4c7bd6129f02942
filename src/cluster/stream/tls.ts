import { readFileSync } from "node:fs";
import type { SecureContextOptions, TlsOptions } from "node:tls";
import { SluiceError, systemErrorCode } from "../../errors/error.ts";

/** `cluster.tls`: paths of PEM files. With `ca`, both sides show a certificate of that authority. */
export interface TlsFiles {
  readonly cert: string;
  readonly key: string;
  readonly ca?: string;
}

/** For the node's API server. Throws SLU-8211 for a file that can't be read. */
export function serverTls(files: TlsFiles): TlsOptions {
  const isMutual = files.ca !== undefined;
  return { ...read(files), requestCert: isMutual, rejectUnauthorized: isMutual };
}

/** For connections to other nodes. Throws SLU-8211 for a file that can't be read. */
export function clientTls(files: TlsFiles): SecureContextOptions {
  return read(files);
}

/** Whether a connection failed because one side didn't accept the other's certificate. */
export function isTlsError(error: unknown): boolean {
  const code = systemErrorCode(error) ?? "";
  return /^(ERR_TLS|ERR_SSL|CERT_|UNABLE_TO_|DEPTH_ZERO|SELF_SIGNED|HOSTNAME_MISMATCH|EPROTO)/.test(code);
}

function read({ cert, key, ca }: TlsFiles): SecureContextOptions {
  return { cert: pem(cert), key: pem(key), ...(ca !== undefined && { ca: pem(ca) }) };
}

function pem(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (cause) {
    throw new SluiceError("SLU-8211", `cluster.tls: ${file} can't be read: ${(cause as Error).message}`, { cause });
  }
}

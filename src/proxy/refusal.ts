import { STATUS_CODES, type ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { codes, type ErrorCode } from "../errors/codes.ts";

export interface RefusalOptions {
  /** The connection ends with the answer. */
  readonly close?: boolean;
  /** A write was sent and nobody knows what became of it. */
  readonly unknown?: boolean;
  /** When the same may succeed, in seconds. */
  readonly retryAfterS?: number;
  /** For a front door, not for people. */
  readonly hop?: string;
}

/** An answer that the front door gives itself, in the application's place. */
export class Refusal extends Error {
  readonly status: number;
  readonly code: ErrorCode;
  readonly options: RefusalOptions;

  constructor(status: number, code: ErrorCode, message: string, options: RefusalOptions = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.options = options;
  }

  /** Flat, as Node.js takes it. */
  headers(bytes: number, closes = false): string[] {
    const { close, unknown, retryAfterS, hop } = this.options;
    const headers = ["Content-Type", "application/json", "Content-Length", String(bytes), "Cache-Control", "no-store"];
    if (unknown) headers.push("Sluice-Outcome", "unknown");
    if (retryAfterS !== undefined) headers.push("Retry-After", String(retryAfterS));
    if (hop !== undefined) headers.push("Sluice-Hop", hop);
    if (close || closes) headers.push("Connection", "close");
    return headers;
  }

  get body(): string {
    const { code, message } = this;
    return `${JSON.stringify({ code, error: message, hint: codes[code].remedy })}\n`;
  }
}

/** Answers in place of the application; `closes`: and ends the connection. The response's head must not have been sent. */
export function refuse(response: ServerResponse, refusal: Refusal, closes: boolean): void {
  const body = Buffer.from(refusal.body);
  response.writeHead(refusal.status, refusal.headers(body.length, closes));
  response.end(body);
}

/** The same on a connection that has no response object: what was no HTTP, or wanted another protocol. */
export function refuseRaw(socket: Duplex, refusal: Refusal): void {
  if (!socket.writable) return void socket.destroy();
  const body = refusal.body;
  const headers = refusal.headers(Buffer.byteLength(body), true);
  socket.end(`${rawHead(refusal.status, STATUS_CODES[refusal.status] ?? "", headers)}${body}`);
}

/** Status line and headers as they are sent. */
export function rawHead(status: number, message: string, headers: readonly string[]): string {
  let text = `HTTP/1.1 ${status} ${message}\r\n`;
  for (let i = 0; i < headers.length; i += 2) text += `${headers[i]}: ${headers[i + 1]}\r\n`;
  return `${text}\r\n`;
}

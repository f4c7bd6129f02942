import { pino, type Logger } from "pino";

export type { Logger } from "pino";

const LEVEL_NAMES: Readonly<Record<number, string>> = {
  10: "TRACE",
  20: "DEBUG",
  30: "INFO ",
  40: "WARN ",
  50: "ERROR",
};
/** Values under these names never get into a line. */
const SECRETS = [
  "secret",
  "password",
  "secretAccessKey",
  "accessKeyId",
  "sessionToken",
  "sseCustomerKey",
  "authorization",
];

export interface LogOptions {
  /** Default: the environment's `LOG_LEVEL`, or info. */
  readonly level?: string | undefined;
  /** Default: text on a terminal, json elsewhere. */
  readonly type?: "text" | "json" | undefined;
}

/** The process's logger, on standard error: standard output belongs to commands and to the application. */
export function createLog(options: LogOptions = {}): Logger {
  const level = options.level ?? process.env["LOG_LEVEL"]?.toLowerCase() ?? "info";
  const text = (options.type ?? (process.stderr.isTTY ? "text" : "json")) === "text";
  const destination = { write: (line: string) => void process.stderr.write(text ? readable(line) : line) };
  const paths = SECRETS.flatMap((name) => [name, `*.${name}`]);
  return pino(
    {
      level: level in pino.levels.values ? level : "info",
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      messageKey: "message",
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths, censor: "***" },
    },
    destination,
  );
}

/** One line for people: time, level, message, then the other fields as `name=value`. */
export function readable(line: string): string {
  const { time, level, message, err, ...fields } = JSON.parse(line) as Record<string, unknown>;
  const label = LEVEL_NAMES[pino.levels.values[String(level)] ?? 30] ?? "INFO ";
  const rest = Object.entries(fields).map(([name, value]) => ` ${name}=${show(value)}`);
  const stack = (err as { stack?: string } | undefined)?.stack;
  return `${String(time).slice(11, 23)} ${label} ${message as string}${rest.join("")}\n${stack ? `${stack}\n` : ""}`;
}

function show(value: unknown): string {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return /[\s"]/.test(text) && typeof value === "string" ? JSON.stringify(value) : text;
}

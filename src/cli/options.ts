import { InvalidArgumentError, Option } from "commander";
import { parseDuration } from "../config/duration.ts";

export const configOption = (): Option =>
  new Option("--config <path>", "configuration file (default: ./sluice.yml, /etc/sluice.yml, or SLUICE_CONFIG)");
export const noTakeoverOption = (): Option =>
  new Option("--no-takeover", "refuse to start when another Sluice on this host looks after a database");
export const jsonOption = (): Option => new Option("--json", "print JSON");

/** Arguments of options; commander prints what is wrong with them and exits with 2. */
export const parse = {
  txid: (text: string): number => {
    const txid = /^[0-9a-f]{1,16}$/i.test(text) ? Number.parseInt(text, 16) : Number.NaN;
    if (Number.isSafeInteger(txid) && txid > 0) return txid;
    throw new InvalidArgumentError("A TXID is up to 16 hexadecimal digits.");
  },
  /** A moment, or how long ago it was; ms since 1970. */
  time: (text: string): number => {
    const agoMs = parseDuration(text);
    if (agoMs !== undefined) return Date.now() - agoMs;
    const ms = /^\d{4}-\d\d-\d\dT\d\d:\d\d/.test(text) ? Date.parse(text) : Number.NaN;
    if (Number.isFinite(ms)) return ms;
    throw new InvalidArgumentError("A time is written as 2026-01-31T12:00:00Z, or as how long ago it was: 90s, 24h.");
  },
  duration: (text: string): number => {
    const ms = parseDuration(text);
    if (ms !== undefined) return ms;
    throw new InvalidArgumentError("A duration is written as 500ms, 10s or 5m.");
  },
};

/**
 * For `node --import`: stops its own process at a message between two Sluices of one host. SLUICE_STOP is JSON: a
 * regular expression for the line, whether it is sent or received, before that or after it, and the signal.
 */
import { Socket } from "node:net";

export interface StopPoint {
  readonly line: string;
  readonly on: "sent" | "received";
  readonly when: "before" | "after";
  readonly signal: "SIGKILL" | "SIGSTOP";
}

const point = JSON.parse(process.env["SLUICE_STOP"] ?? "null") as StopPoint | null;
if (point) {
  const pattern = new RegExp(point.line);
  let isOver = false;
  const around = <T>(chunk: unknown, go: () => T): T => {
    const hit = !isOver && typeof chunk === "string" && pattern.test(chunk);
    if (hit) isOver = true;
    if (hit && point.when === "before") process.kill(process.pid, point.signal);
    const result = go();
    if (hit && point.when === "after") process.kill(process.pid, point.signal);
    return result;
  };
  const socket = Socket.prototype as unknown as Record<"write" | "emit", (...args: unknown[]) => unknown>;
  const { write, emit } = socket;
  if (point.on === "sent") {
    socket.write = function (this: unknown, ...args) {
      return around(args[0], () => write.apply(this, args));
    };
  } else {
    socket.emit = function (this: unknown, ...args) {
      return args[0] === "data" ? around(args[1], () => emit.apply(this, args)) : emit.apply(this, args);
    };
  }
}

import type { RestoreProgress } from "../log/restore-progress.ts";
import { formatBytes } from "./output.ts";

const WIDTH = 30;
const EVERY_MS = 100;

/** A progress bar on standard error, where that is a terminal and `wanted`; elsewhere nothing is shown. */
export function progressBar(wanted: boolean): { show: (progress: RestoreProgress) => void; end: () => void } {
  if (!wanted || !process.stderr.isTTY) return { show: () => undefined, end: () => undefined };
  let shownAtMs = 0;
  return {
    show(progress) {
      const now = performance.now();
      if (progress.phase === "fetch" && now - shownAtMs < EVERY_MS) return;
      shownAtMs = now;
      process.stderr.write(`\r\x1b[K${line(progress)}`);
    },
    end: () => void process.stderr.write("\r\x1b[K"),
  };
}

/** The same for a copy, of which only the bytes are known. */
export function copyBar(wanted: boolean): { show: (bytesDone: number, bytesTotal: number) => void; end: () => void } {
  const bar = progressBar(wanted);
  return { show: (bytesDone, bytesTotal) => bar.show({ phase: "fetch", bytesDone, bytesTotal }), end: bar.end };
}

function line({ phase, bytesDone, bytesTotal }: RestoreProgress): string {
  if (phase !== "fetch") return { plan: "planning", check: "checking", install: "putting in place" }[phase];
  const part = bytesTotal === 0 ? 0 : Math.min(1, bytesDone / bytesTotal);
  const done = Math.round(part * WIDTH);
  const bar = `${"█".repeat(done)}${"░".repeat(WIDTH - done)}`;
  return `${bar} ${Math.floor(part * 100)} %  ${formatBytes(bytesDone)} of ${formatBytes(bytesTotal)}`;
}

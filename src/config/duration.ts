const DURATION_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const SIZE_BYTES: Readonly<Record<string, number>> = {
  "": 1,
  k: 1000,
  m: 1e6,
  g: 1e9,
  ki: 1024,
  mi: 1024 ** 2,
  gi: 1024 ** 3,
};

/** "1h30m", "1.5s", "250ms" in ms; undefined for anything else. Go's notation, with days. */
export function parseDuration(text: string): number | undefined {
  if (!/^(?:\d+(?:\.\d+)?(?:ms|[smhd]))+$/.test(text)) return text === "0" ? 0 : undefined;
  let total = 0;
  for (const [, amount, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ms|[smhd])/g))
    total += Number(amount) * DURATION_MS[unit!]!;
  return total;
}

/** "10MB", "64MiB", "5 GiB", "1000" in bytes; undefined for anything else. */
export function parseSize(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)\s*([kmg]i?)?b?$/i.exec(text);
  const scale = match && SIZE_BYTES[(match[2] ?? "").toLowerCase()];
  return match && scale !== undefined && scale !== null ? Math.round(Number(match[1]) * scale) : undefined;
}

/** A duration as people write it, for `config explain` and messages. */
export function formatDuration(ms: number): string {
  for (const unit of ["d", "h", "m", "s"]) {
    const scale = DURATION_MS[unit]!;
    if (ms >= scale && ms % scale === 0) return `${ms / scale}${unit}`;
  }
  return `${ms}ms`;
}

import { valueOf } from "./headers.ts";

/**
 * Whether an application's answer asks for a replay on the primary: `Sluice-Replay: primary`, or `fly-replay` as
 * applications for LiteFS write it. One for another app of Fly.io's is not for this cluster. Where Fly.io's proxy
 * itself does the replays (`byFly`), its header is passed on.
 */
export function asksForReplay(raw: readonly string[], byFly: boolean): boolean {
  const own = valueOf(raw, "sluice-replay");
  if (own !== undefined) return own.trim().toLowerCase() === "primary";
  if (byFly) return false;
  const fly = valueOf(raw, "fly-replay");
  return (
    fly !== undefined &&
    /(?:^|;)\s*(?:instance|region|prefer_instance|elsewhere)=/i.test(fly) &&
    !/(?:^|;)\s*app=/i.test(fly)
  );
}

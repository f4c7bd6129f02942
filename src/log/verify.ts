import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SluiceError } from "../errors/error.ts";
import { formatPosition, type Position } from "../ltx/position.ts";
import { restore, type Restored, type RestoreOptions } from "./restore.ts";

export interface VerifyOptions extends Omit<RestoreOptions, "path" | "force"> {
  /** Where the scratch directory is made; the system's temporary directory by default. */
  readonly scratchDir?: string;
  /** What the live database says of itself, asked once the log has been restored. */
  readonly live?: () => Promise<LiveState | undefined>;
}

export interface LiveState {
  readonly position: Position;
  readonly checksum: bigint;
}

export interface Verified extends Omit<Restored, "path" | "pageSums"> {
  /** Whether the last record held a checksum, which then was right; Litestream's hold none. */
  readonly recordChecked: boolean;
  /** `equal`; `moved on`: the live database is at another position than the log's end; `none`: there was none. */
  readonly live: "equal" | "moved on" | "none";
}

/**
 * A restore drill: restores the state to a scratch file, with all of a restore's checks and SQLite's full one unless
 * `integrityCheck` says otherwise, compares with the live database where that is at the same position, and removes the
 * file again. Rejects as `restore` does, and with SLU-4515 when the live database differs.
 */
export async function verify(options: VerifyOptions): Promise<Verified> {
  const { scratchDir = tmpdir(), integrityCheck = "full", live: askLive } = options;
  const directory = await mkdtemp(join(scratchDir, "sluice-verify-"));
  try {
    const restored = await restore({ ...options, integrityCheck, path: join(directory, "restored.db") });
    const live = compare(restored, await askLive?.(), options.store.url);
    const { path: _path, pageSums: _sums, ...state } = restored;
    return { ...state, recordChecked: restored.writer !== undefined, live };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

function compare(restored: Restored, live: LiveState | undefined, url: string): Verified["live"] {
  if (live === undefined || restored.checksum === undefined) return "none";
  if (live.position !== restored.position) return "moved on";
  if (live.checksum === restored.checksum) return "equal";
  throw new SluiceError(
    "SLU-4515",
    `${url}: at position ${formatPosition(live.position)} the live database and the restored one differ`,
  );
}

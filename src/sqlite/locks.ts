import koffi from "koffi";
import { SluiceError } from "../errors/error.ts";

/**
 * Open-file-description locks (`fcntl` with `F_OFD_SETLK`; fcntl(2), "Open file description locks"). They conflict
 * with the POSIX locks of SQLite's unix VFS, and unlike those they stay when the process closes some other descriptor
 * of the same file. They belong to the description, so a process that inherits it shares them.
 */

/** Byte `SHARED_FIRST` of os.h: the range that a reader of the database file locks shared. */
export const SHARED_FIRST = 0x40000002;
export const SHARED_SIZE = 510;

/** Lock bytes of the `-shm` file (os_unix.c `UNIX_SHM_BASE`, `UNIX_SHM_DMS`; wal.c `WAL_*_LOCK`). */
export const WAL_WRITE_LOCK = 120;
export const WAL_CKPT_LOCK = 121;
export const WAL_DMS_LOCK = 128;
/** `WAL_READ_LOCK(i)`, i from 0 to 4. */
export function walReadLock(i: number): number {
  return 123 + i;
}
/** The read lock that Sluice holds for ever, so that nobody else restarts the WAL: `WAL_READ_LOCK(4)`. */
export const WAL_PIN_LOCK = 127;

export type LockMode = "shared" | "exclusive";

const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;
const SEEK_SET = 0;
const EAGAIN = 11;
const EACCES = 13;
const EINTR = 4;

interface Flock {
  l_type: number;
  l_whence: number;
  l_start: number;
  l_len: number;
  l_pid: number;
}

type Fcntl = (fd: number, command: number, lock: Flock) => number;

let bound: Fcntl | undefined;
// One structure for all calls: they are synchronous, and koffi copies it in and out.
const flock: Flock = { l_type: 0, l_whence: SEEK_SET, l_start: 0, l_len: 0, l_pid: 0 };

function fcntl(): Fcntl {
  if (bound !== undefined) return bound;
  if (process.platform !== "linux" || (process.arch !== "x64" && process.arch !== "arm64")) {
    throw new SluiceError("SLU-2001", `byte-range locks are not available on ${process.platform}/${process.arch}`);
  }
  const struct = koffi.struct({
    l_type: "int16",
    l_whence: "int16",
    l_start: "int64",
    l_len: "int64",
    l_pid: "int32",
  });
  bound = koffi.load(null).func("fcntl", "int", ["int", "int", koffi.inout(koffi.pointer(struct))]) as unknown as Fcntl;
  return bound;
}

function call(fd: number, command: number, type: number, start: number, length: number): boolean {
  const invoke = bound ?? fcntl();
  for (;;) {
    flock.l_type = type;
    flock.l_whence = SEEK_SET;
    flock.l_start = start;
    flock.l_len = length;
    // The kernel refuses OFD commands unless l_pid is 0.
    flock.l_pid = 0;
    if (invoke(fd, command, flock) !== -1) return true;
    const errno = koffi.errno();
    if (errno === EAGAIN || errno === EACCES) return false;
    if (errno !== EINTR) {
      throw new SluiceError("SLU-2002", `fcntl on descriptor ${fd}, byte ${start}: errno ${errno}`);
    }
  }
}

/**
 * Takes or converts the lock on `length` bytes from `start` without waiting; false when somebody else's lock is in the
 * way (a lock that is held already then stays as it is). Throws SLU-2002 when the file system has no such locks.
 */
export function tryLock(fd: number, mode: LockMode, start: number, length = 1): boolean {
  return call(fd, F_OFD_SETLK, mode === "shared" ? F_RDLCK : F_WRLCK, start, length);
}

/** Releases the description's lock on `length` bytes from `start`; nothing happens where there is none. */
export function unlock(fd: number, start: number, length = 1): void {
  call(fd, F_OFD_SETLK, F_UNLCK, start, length);
}

export interface LockHolder {
  readonly mode: LockMode;
  /** Process that holds it, or -1 for an open-file-description lock (another Sluice, or its guardian). */
  readonly pid: number;
}

/** Who else holds a lock that would refuse `mode` on these bytes (`F_OFD_GETLK`); undefined when it would be granted. */
export function lockHolder(fd: number, mode: LockMode, start: number, length = 1): LockHolder | undefined {
  call(fd, F_OFD_GETLK, mode === "shared" ? F_RDLCK : F_WRLCK, start, length);
  if (flock.l_type === F_UNLCK) return undefined;
  return { mode: flock.l_type === F_WRLCK ? "exclusive" : "shared", pid: flock.l_pid };
}

/** Whether `mode` would be refused just now. Allocates nothing. */
export function isLockedByOther(fd: number, mode: LockMode, start: number, length = 1): boolean {
  call(fd, F_OFD_GETLK, mode === "shared" ? F_RDLCK : F_WRLCK, start, length);
  return flock.l_type !== F_UNLCK;
}

import { readdirSync } from "node:fs";
import { constants } from "node:os";
import koffi from "koffi";

/**
 * The C library calls that Node.js lacks and that the supervision of processes needs. Linux on x64 and arm64 only, as
 * all of Sluice (struct layouts are those of 64-bit little-endian Linux, the same in glibc and musl).
 */

const PR_SET_CHILD_SUBREAPER = 36;
const P_ALL = 0;
const WNOHANG = 1;
const WEXITED = 4;
const WNOWAIT = 0x01000000;
const AF_UNIX = 1;
const SOCK_SEQPACKET = 5;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;
/** Size of `struct cmsghdr`, after which the descriptors stand as 32-bit integers. */
const CMSG_HEADER = 16;
const SIGINFO_SIZE = 128;
const RLIMIT_NOFILE = 7;
/** Descriptors that starting a process takes for a moment. */
const SPARE_FILES = 32;

/** The most descriptors that one message may carry (`SCM_MAX_FD` is 253; Sluice sends three at most). */
const DESCRIPTORS_MAX = 64;

const libc = koffi.load(null);
const iovec = koffi.struct({ base: "uint8_t *", length: "size_t" });
const msghdr = koffi.struct({
  name: "void *",
  nameLength: "uint32_t",
  iov: koffi.pointer(iovec),
  iovLength: "size_t",
  control: "uint8_t *",
  controlLength: "size_t",
  flags: "int",
});

interface MessageHeader {
  name: null;
  nameLength: number;
  iov: { base: Uint8Array; length: number }[];
  iovLength: number;
  control: Uint8Array;
  controlLength: number;
  flags: number;
}

const prctl = libc.func("prctl", "int", ["int", "ulong", "ulong", "ulong", "ulong"]);
const waitpidCall = libc.func("waitpid", "int", ["int", "void *", "int"]);
const waitid = libc.func("waitid", "int", ["int", "int", "_Out_ uint8_t *", "int"]);
const getrlimit = libc.func("getrlimit", "int", ["int", "_Out_ uint64_t *"]);
const setrlimit = libc.func("setrlimit", "int", ["int", "uint64_t *"]);
const socketpair = libc.func("socketpair", "int", ["int", "int", "int", "_Out_ int *"]);
const sendmsg = libc.func("sendmsg", "int64_t", ["int", koffi.pointer(msghdr), "int"]);
const recvmsg = libc.func("recvmsg", "int64_t", ["int", koffi.inout(koffi.pointer(msghdr)), "int"]);

/** An error of a C library call, shaped as Node.js's own: `code` is the name of errno. */
function failure(call: string): NodeJS.ErrnoException {
  const errno = koffi.errno();
  const name = Object.entries(constants.errno).find(([, value]) => value === errno)?.[0] ?? `errno ${errno}`;
  return Object.assign(new Error(`${call}: ${name}`), { code: name, errno, syscall: call });
}

/** Makes this process the new parent of every descendant whose own parent ends (prctl(2), PR_SET_CHILD_SUBREAPER). */
export function becomeSubreaper(): void {
  if ((prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) as number) !== 0) throw failure("prctl");
}

/** Removes the zombie `pid`, a child of this process; nothing happens when it still runs or is no child. */
export function reapChild(pid: number): void {
  waitpidCall(pid, null, WNOHANG);
}

/** Whether this process has any child, also one that is a zombie (`waitid` says ECHILD where there is none). */
export function hasChildren(): boolean {
  return (waitid(P_ALL, 0, Buffer.alloc(SIGINFO_SIZE), WEXITED | WNOHANG | WNOWAIT) as number) === 0;
}

/**
 * Runs `start` with this soft limit of open files (setrlimit(2)), which what it starts inherits, or with the lowest that
 * leaves room for what this process has open; then goes back to the limit from before.
 */
export function withOpenFilesLimit<T>(soft: number | undefined, start: () => T): T {
  const limits = new BigUint64Array(2);
  const [now] = soft !== undefined && getrlimit(RLIMIT_NOFILE, limits) === 0 ? limits : [];
  if (soft === undefined || now === undefined) return start();
  const highest = Math.max(...readdirSync("/proc/self/fd").map(Number));
  const wanted = BigInt(Math.max(soft, highest + SPARE_FILES));
  if (wanted >= now) return start();
  limits[0] = wanted;
  setrlimit(RLIMIT_NOFILE, limits);
  try {
    return start();
  } finally {
    limits[0] = now;
    setrlimit(RLIMIT_NOFILE, limits);
  }
}

/** Two connected sockets that keep message boundaries; a process that is started inherits neither by itself. */
export function socketPair(): [number, number] {
  const pair = new Int32Array(2);
  if ((socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) as number) !== 0) throw failure("socketpair");
  return [pair[0] ?? -1, pair[1] ?? -1];
}

function header(payload: Uint8Array, control: Uint8Array): MessageHeader {
  const iov = [{ base: payload, length: payload.length }];
  return { name: null, nameLength: 0, iov, iovLength: 1, control, controlLength: control.length, flags: 0 };
}

/** `CMSG_SPACE`: room for the header and `count` descriptors, rounded up to 8 bytes. */
function controlSpace(count: number): number {
  return CMSG_HEADER + ((count * 4 + 7) & ~7);
}

/**
 * Sends open descriptors to the process at the other end of a socket (unix(7), SCM_RIGHTS). The receiver shares the
 * open file descriptions, and with them their locks. Throws EAGAIN when the receiver does not keep up.
 */
export function sendDescriptors(socket: number, descriptors: readonly number[]): void {
  if (descriptors.length === 0 || descriptors.length > DESCRIPTORS_MAX) {
    throw new RangeError(`${descriptors.length} descriptors in one message`);
  }
  const control = Buffer.alloc(controlSpace(descriptors.length));
  control.writeBigUInt64LE(BigInt(CMSG_HEADER + descriptors.length * 4), 0);
  control.writeInt32LE(SOL_SOCKET, 8);
  control.writeInt32LE(SCM_RIGHTS, 12);
  descriptors.forEach((fd, i) => control.writeInt32LE(fd, CMSG_HEADER + i * 4));
  const sent = sendmsg(socket, header(Buffer.of(descriptors.length), control), MSG_NOSIGNAL | MSG_DONTWAIT) as number;
  if (sent !== 1) throw failure("sendmsg");
}

/**
 * Takes the descriptors of the next message, close-on-exec. Throws EAGAIN when no message is there, and when the kernel
 * could not install all of them (this process is at its limit of open files), closing those that did come through
 * `close`.
 */
export function receiveDescriptors(socket: number, close: (fd: number) => void): number[] {
  const payload = Buffer.alloc(1);
  const control = Buffer.alloc(controlSpace(DESCRIPTORS_MAX));
  if ((recvmsg(socket, header(payload, control), MSG_CMSG_CLOEXEC | MSG_DONTWAIT) as number) !== 1) {
    throw failure("recvmsg");
  }
  const length = Math.max(0, Number(control.readBigUInt64LE(0)) - CMSG_HEADER);
  const received = Array.from({ length: length >> 2 }, (_, i) => control.readInt32LE(CMSG_HEADER + i * 4));
  if (received.length !== payload[0]) {
    received.forEach(close);
    throw Object.assign(new Error("descriptors were lost on the way"), { code: "EMFILE" });
  }
  return received;
}

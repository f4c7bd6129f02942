import koffi from "koffi";

let bytes: number | undefined;

/** Size of a memory page (getpagesize(2)): 4 KiB, or up to 64 KiB on some arm64 systems. */
export function osPageBytes(): number {
  bytes ??= koffi.load(null).func("int getpagesize(void)")() as number;
  return bytes;
}

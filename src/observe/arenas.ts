import koffi from "koffi";

/** `M_ARENA_MAX` of glibc's malloc.h. */
const M_ARENA_MAX = -8;
const ARENAS = 2;

/**
 * Lets the C library's allocator have two arenas instead of eight a core: each thread of a restore would have one of its own,
 * and what is in them is hardly ever given back (mallopt(3)). To be called before the first thread starts; nothing
 * happens where the C library has no such thing.
 */
export function limitArenas(): void {
  try {
    koffi.load(null).func("mallopt", "int", ["int", "int"])(M_ARENA_MAX, ARENAS);
  } catch {
    // It only saves memory.
  }
}

const WORTH_BYTES = 16 * 1024;

/**
 * Gives a chunk's memory back as soon as it has been written, instead of when the garbage collector finds it: with a
 * stream of large chunks that is tens of MB later. Nobody else may have the chunk. Undefined where it isn't worth it,
 * or the memory isn't the chunk's alone.
 */
export function freeing(chunk: Buffer): ((error?: Error | null) => void) | undefined {
  const memory = chunk.buffer;
  if (chunk.length < WORTH_BYTES || memory.byteLength !== chunk.length || !(memory instanceof ArrayBuffer))
    return undefined;
  return (error) => {
    // After an error the system may still hold it.
    if (!error && !memory.detached) memory.transfer(0);
  };
}

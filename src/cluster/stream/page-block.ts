import type { PageChunk } from "../../database/replication.ts";
import { LENGTH_BYTES, lz4Library } from "../../ltx/lz4.ts";
import { damaged } from "./bytes.ts";
import { CHUNK_BYTES_MAX, type PackedBlock } from "./messages.ts";

const AS_IS = 0;
const LZ4 = 1;
/** Compression must save this part, or the other side's work isn't worth it. */
const SAVES = 1 / 16;

/** The pages of a chunk for a message; refers to `chunk`. */
export function packPages({ numbers, content }: PageChunk): PackedBlock {
  const packed = lz4Library().compressSync(content).subarray(LENGTH_BYTES);
  if (packed.length > content.length * (1 - SAVES)) return { numbers, packed: AS_IS, content };
  return { numbers, packed: LZ4, content: packed };
}

let scratch = Buffer.alloc(0);

/** A block as the library wants it; valid until the next call. One buffer for all: fresh ones of this size are the collector's work. */
function withLength(content: Uint8Array, size: number): Uint8Array {
  const length = LENGTH_BYTES + content.length;
  if (scratch.length < length) scratch = Buffer.allocUnsafeSlow(length);
  scratch.writeUInt32LE(size, 0);
  scratch.set(content, LENGTH_BYTES);
  return scratch.subarray(0, length);
}

/** The pages of a message; may refer to it. Throws SLU-8208 for what isn't whole pages of `pageSize`. */
export function unpackPages({ numbers, packed, content }: PackedBlock, pageSize: number): PageChunk {
  const size = numbers.length * pageSize;
  if (size > CHUNK_BYTES_MAX) throw damaged(`${numbers.length} pages in one message`);
  if (packed === AS_IS) {
    if (content.length !== size) throw damaged(`${content.length} bytes for ${numbers.length} pages`);
    return { numbers, content };
  }
  if (packed !== LZ4) throw damaged(`pages packed in way ${packed}`);
  let pages: Uint8Array;
  try {
    pages = lz4Library().uncompressSync(withLength(content, size));
  } catch {
    throw damaged("packed pages that can't be unpacked");
  }
  if (pages.length !== size) throw damaged(`${pages.length} bytes for ${numbers.length} pages`);
  return { numbers, content: pages };
}

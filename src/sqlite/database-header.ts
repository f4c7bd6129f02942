/**
 * The first 100 bytes of a database file (SQLite's "Database File Format", section 1.3). Sluice reads them to learn
 * what kind of file it has; the size of a WAL database comes from the wal-index, never from here.
 */
const DATABASE_HEADER_BYTES = 100;

/** Byte offset of the lock page: the page that contains it never holds content (`PENDING_BYTE` of os.h). */
export const PENDING_BYTE = 0x40000000;

const MAGIC = "SQLite format 3\0";

export interface DatabaseHeader {
  /** Bytes: a power of two from 512 to 65536. */
  readonly pageSize: number;
  /** 1: rollback journal, 2: WAL; 3 and above: read-only for every SQLite of today. */
  readonly writeVersion: number;
  readonly readVersion: number;
  readonly changeCounter: number;
  /** Pages, as the header says; right only when `versionValidFor` equals `changeCounter`. */
  readonly pageCount: number;
  readonly versionValidFor: number;
}

/** What the first bytes of a database file say, or undefined when they are no SQLite header. */
export function parseDatabaseHeader(bytes: Uint8Array): DatabaseHeader | undefined {
  if (bytes.length < DATABASE_HEADER_BYTES) return undefined;
  for (let i = 0; i < MAGIC.length; i++) if (bytes[i] !== MAGIC.charCodeAt(i)) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const stored = view.getUint16(16);
  const pageSize = stored === 1 ? 65536 : stored;
  if (!isPageSize(pageSize)) return undefined;
  return {
    pageSize,
    writeVersion: view.getUint8(18),
    readVersion: view.getUint8(19),
    changeCounter: view.getUint32(24),
    pageCount: view.getUint32(28),
    versionValidFor: view.getUint32(92),
  };
}

/** Whether SQLite can have pages of `size` bytes. */
export function isPageSize(size: number): boolean {
  return size >= 512 && size <= 65536 && (size & (size - 1)) === 0;
}

/** Number of the page that SQLite never uses because its lock bytes lie in it. */
export function lockPageOf(pageSize: number): number {
  return PENDING_BYTE / pageSize + 1;
}

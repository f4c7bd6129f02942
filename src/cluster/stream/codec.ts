import type { ByteReader, ByteWriter } from "./bytes.ts";

/** How one value lies in a message. */
export interface Field<T> {
  write(writer: ByteWriter, value: T): void;
  read(reader: ByteReader): T;
}

export type Fields = Readonly<Record<string, Field<unknown>>>;
export type ValuesOf<F> = { readonly [K in keyof F]: F[K] extends Field<infer T> ? T : never };

/** An integer from 0 to `most`. */
export function integer(most: number = Number.MAX_SAFE_INTEGER): Field<number> {
  return { write: (writer, value) => writer.varint(value), read: (reader) => reader.varint(most) };
}

export const u64: Field<bigint> = {
  write: (writer, value) => writer.u64(value),
  read: (reader) => reader.u64(),
};

/** One byte; whatever isn't 0 is true. */
export const flag: Field<boolean> = {
  write: (writer, value) => writer.u8(value ? 1 : 0),
  read: (reader) => reader.u8() !== 0,
};

/** Text of at most `most` bytes of UTF-8. */
export function text(most: number): Field<string> {
  return { write: (writer, value) => writer.text(value), read: (reader) => reader.text(most) };
}

export function bytes(most: number): Field<Uint8Array> {
  return { write: (writer, value) => writer.bytes(value), read: (reader) => reader.bytes(most) };
}

/** At most `most` 32-bit words. */
export function words(most: number): Field<Uint32Array> {
  return { write: (writer, value) => writer.words(value), read: (reader) => reader.words(most) };
}

export function list<T>(of: Field<T>, most: number): Field<readonly T[]> {
  return {
    write: (writer, values) => {
      writer.varint(values.length);
      for (const value of values) of.write(writer, value);
    },
    read: (reader) => Array.from({ length: reader.varint(most) }, () => of.read(reader)),
  };
}

/** Fields one after the other, in the order in which they are named here. */
export function struct<F extends Fields>(fields: F): Field<ValuesOf<F>> {
  const all = Object.entries(fields) as readonly [string, Field<unknown>][];
  return {
    write: (writer, values) => {
      for (const [name, field] of all) field.write(writer, (values as Record<string, unknown>)[name]);
    },
    read: (reader) => {
      const values: Record<string, unknown> = {};
      for (const [name, field] of all) values[name] = field.read(reader);
      return values as ValuesOf<F>;
    },
  };
}

/**
 * As much of an assembler for WebAssembly as the kernels need: every function gives the bytes of an expression or a
 * statement, operands first. Opcodes: WebAssembly core specification 3.0, section 5.4; types: section 5.3.
 */
export type Code = readonly number[];

/** Of the WebAssembly JavaScript interface; the types of Node.js don't have it. */
declare const WebAssembly: {
  readonly Module: new (bytes: Uint8Array<ArrayBuffer>) => object;
  readonly Instance: new (module: object) => { readonly exports: unknown };
  readonly CompileError: new () => Error;
};

export const I32 = 0x7f;
export const I64 = 0x7e;
export const V128 = 0x7b;
const NO_RESULT = 0x40;

export interface FunctionCode {
  readonly name: string;
  /** Types of parameters, of the result (none: `undefined`), and of the other locals. */
  readonly parameters: readonly number[];
  readonly result?: number;
  readonly locals: readonly number[];
  readonly body: readonly Code[];
}

export interface Exports {
  readonly memory: { readonly buffer: ArrayBuffer };
  /** The functions, by their names. */
  readonly [name: string]: unknown;
}

/**
 * Compiles functions that share a memory of `memoryPages` of 64 KiB, and returns both. Undefined where WebAssembly has
 * no memory (it reserves gigabytes of addresses, which a limit may forbid), or the processor no vectors.
 */
export function instantiate(functions: readonly FunctionCode[], memoryPages: number): Exports | undefined {
  try {
    const module = new WebAssembly.Module(moduleBytes(functions, memoryPages));
    return new WebAssembly.Instance(module).exports as Exports;
  } catch (error) {
    if (error instanceof RangeError || error instanceof WebAssembly.CompileError) return undefined;
    throw error;
  }
}

function moduleBytes(functions: readonly FunctionCode[], memoryPages: number): Uint8Array<ArrayBuffer> {
  const types = functions.map(({ parameters, result }) => {
    const results = result === undefined ? [] : [result];
    return [0x60, parameters.length, ...parameters, results.length, ...results];
  });
  const names = functions.map(({ name }, i) => [...text(name), 0, i]);
  const bodies = functions.map(({ locals, body }) => {
    const code = [locals.length, ...locals.flatMap((type) => [1, type]), ...body.flat(), 0x0b];
    return [...unsigned(code.length), ...code];
  });
  const count = functions.length;
  const parts = [
    [...Buffer.from("\0asm"), 1, 0, 0, 0],
    section(1, [count, ...types.flat()]),
    section(3, [count, ...functions.keys()]),
    section(5, [1, 0, ...unsigned(memoryPages)]),
    section(7, [count + 1, ...text("memory"), 2, 0, ...names.flat()]),
    section(10, [count, ...bodies.flat()]),
  ];
  return Uint8Array.from(parts.flat());
}

function section(id: number, content: Code): Code {
  return [id, ...unsigned(content.length), ...content];
}

function text(name: string): number[] {
  return [name.length, ...Buffer.from(name)];
}

/** LEB128. */
function unsigned(value: number): number[] {
  return value < 128 ? [value] : [(value & 127) | 128, ...unsigned(value >>> 7)];
}

function signed(value: number): number[] {
  return value >= -64 && value < 64 ? [value & 127] : [(value & 127) | 128, ...signed(value >> 7)];
}

const binary =
  (...opcode: number[]) =>
  (a: Code, b: Code): Code => [...a, ...b, ...opcode];
const load =
  (...opcode: number[]) =>
  (at: Code, offset = 0): Code => [...at, ...opcode, 0, ...unsigned(offset)];
const store =
  (...opcode: number[]) =>
  (at: Code, value: Code, offset = 0): Code => [...at, ...value, ...opcode, 0, ...unsigned(offset)];

export const get = (local: number): Code => [0x20, local];
export const set = (local: number, value: Code): Code => [...value, 0x21, local];
export const i32 = (value: number): Code => [0x41, ...signed(value)];
export const i64 = (value: number): Code => [0x42, ...signed(value)];

export const loop = (...body: readonly Code[]): Code => [0x03, NO_RESULT, ...body.flat(), 0x0b];
export const when = (condition: Code, ...body: readonly Code[]): Code => [
  ...condition,
  0x04,
  NO_RESULT,
  ...body.flat(),
  0x0b,
];
export const otherwise: Code = [0x05];
/** Goes to the beginning of the loop `depth` constructs further out. */
export const again = (depth: number): Code => [0x0c, depth];
export const againIf = (condition: Code, depth = 0): Code => [...condition, 0x0d, depth];
export const giveBack = (value: Code): Code => [...value, 0x0f];

export const load8 = load(0x2d);
export const load16 = load(0x2f);
export const load32 = load(0x28);
export const load64 = load(0x29);
export const store8 = store(0x3a);
export const store16 = store(0x3b);
export const store64 = store(0x37);
export const load128 = load(0xfd, 0x00);
export const store128 = store(0xfd, 0x0b);

export const equal = binary(0x46);
export const differ = binary(0x47);
export const lessUnsigned = binary(0x49);
export const moreUnsigned = binary(0x4b);
export const atMostUnsigned = binary(0x4d);
export const atLeastUnsigned = binary(0x4f);
export const add = binary(0x6a);
export const subtract = binary(0x6b);
export const multiply = binary(0x6c);
export const and = binary(0x71);
export const or = binary(0x72);
export const shiftRight = binary(0x76);
export const shiftLeft = binary(0x74);
export const xor64 = binary(0x85);
export const shiftLeft64 = binary(0x86);
export const shiftRight64 = binary(0x88);
export const isZero64 = (value: Code): Code => [...value, 0x50];
export const trailingZeros64 = (value: Code): Code => [...value, 0x7a];
/** The low 32 bits of 64. */
export const low32 = (value: Code): Code => [...value, 0xa7];
/** Fills memory with zeros. */
export const clear = (at: number, bytes: number): Code => [...i32(at), ...i32(0), ...i32(bytes), 0xfc, 0x0b, 0];
export const xor128 = binary(0xfd, 0x51);
/** Byte i of the result is byte `b[i]` of `a`. */
export const pick = binary(0xfd, 0x0e);
export const zero128: Code = [0xfd, 0x0c, ...Array.from({ length: 16 }, () => 0)];
/** Bytes `from` … `from + 15` of `a` and the following `b`. */
export const window = (a: Code, b: Code, from: number): Code => [
  ...a,
  ...b,
  0xfd,
  0x0d,
  ...Array.from({ length: 16 }, (_, i) => from + i),
];
/** A vector of which the first half is `value`, and the rest 0. */
export const vectorOf = (value: Code): Code => [...zero128, ...value, 0xfd, 0x1e, 0];
/** A half of a vector as a number of 64 bits. */
export const half = (vector: Code, lane: 0 | 1): Code => [...vector, 0xfd, 0x1d, lane];

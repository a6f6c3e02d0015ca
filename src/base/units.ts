/**
 * Units as types. Block numbers are 512-byte blocks held in safe integers (up to 2^53 - 1, 4 ZiB);
 * bytes are bigints. These are the only conversions between the two.
 */
declare const unit: unique symbol
export type Branded<T, U extends string> = T & { readonly [unit]: U }

/** A count or address of 512-byte blocks, as SVM counts. */
export type Blocks = Branded<number, 'Blocks'>
/** A count or address of bytes. */
export type Bytes = Branded<bigint, 'Bytes'>

export const BLOCK_BYTES = 512

/** @throws RangeError unless n is a non-negative safe integer: a bug in the caller, never bad input. */
export const blocks = (n: number): Blocks => {
  if (!Number.isSafeInteger(n) || n < 0) throw new RangeError(`blocks: ${n}`)
  return n as Blocks
}
export const addBlocks = (a: Blocks, b: Blocks): Blocks => blocks(a + b)
export const subBlocks = (a: Blocks, b: Blocks): Blocks => blocks(a - b)
/** Largest multiple of `unit` that is at most `n`. */
export const roundDown = (n: Blocks, unit: Blocks): Blocks => blocks(n - (n % unit))
/** Smallest multiple of `unit` that is at least `n`. */
export const roundUp = (n: Blocks, unit: Blocks): Blocks => blocks(Math.ceil(n / unit) * unit)
export const toBytes = (n: Blocks): Bytes => (BigInt(n) * BigInt(BLOCK_BYTES)) as Bytes
/** Whole blocks that fit in `bytes`; a partial last block is not usable. */
export const wholeBlocks = (bytes: bigint): Blocks => blocks(Number(bytes / BigInt(BLOCK_BYTES)))

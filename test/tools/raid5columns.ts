/**
 * A RAID5 device read behind metad's back, from what its columns hold: for tests that must not believe metad.
 *
 * Written from the tables of SVM's layout alone, line by line; it shares no arithmetic with src/meta/raid5geometry.ts or
 * native/md/raid5.h. How a column is divided is read from its own first block (docs/raid5.md).
 */
const BLOCK = 512
const MAGIC = 0xbadbabe3
/** As a column says of itself, 64-bit little-endian form; blocks. */
const AT = {
  column: 36,
  magic: 44,
  originals: 48,
  columns: 52,
  segment: 56,
  lines: 60,
  prewrite: 72,
  data: 76,
  start: 84,
}

export interface ColumnsOnDisk {
  readonly originals: number
  readonly lines: number
  /** Bytes of a segment. */
  readonly segment: number
  /** Data and parity of each column, `lines` segments; null: it is not there. */
  readonly columns: readonly (Buffer | null)[]
}

/** Segments of a device in the order of its address space: line and column of each. */
export const segmentsOf = (
  originals: number,
  columns: number,
  lines: number,
): readonly (readonly [number, number])[] => {
  const all: (readonly [number, number])[] = []
  for (let line = 0; line < lines; line++) {
    const parity = parityOf(originals, line)
    // A line begins right of its parity and goes around.
    for (let step = 1; step < originals; step++) all.push([line, (parity + step) % originals])
  }
  for (let attached = originals; attached < columns; attached++)
    for (let line = 0; line < lines; line++) all.push([line, attached])
  return all
}

/** The last column in line 0, then one to the right with each line. */
export const parityOf = (originals: number, line: number): number =>
  (line % originals === 0 ? originals : line % originals) - 1

/**
 * @param images whole columns, the originals first; null: do not look at it
 * @throws when a column does not say that it is this one, or not the same as the others
 */
export const readColumns = (images: readonly (Buffer | null)[]): ColumnsOnDisk => {
  let shape: { readonly originals: number; readonly segment: number; readonly lines: number } | null = null
  const columns = images.map((image, i) => {
    if (image === null) return null
    const at = startOf(image)
    const u32 = (field: number): number => image.readUInt32LE(at + field)
    const long = (field: number): number => Number(image.readBigUInt64LE(at + field))
    const said = { originals: u32(AT.originals), segment: u32(AT.segment) * BLOCK, lines: long(AT.lines) }
    shape ??= said
    const own = u32(AT.column) === i && u32(AT.columns) === images.length && long(AT.start) * BLOCK === at
    if (!own || JSON.stringify(said) !== JSON.stringify(shape))
      throw new Error(
        `column ${i} says ${JSON.stringify({ ...said, column: u32(AT.column), columns: u32(AT.columns) })}`,
      )
    const begin = long(AT.data) * BLOCK
    if (begin !== at + u32(AT.prewrite) * BLOCK) throw new Error(`column ${i} begins at ${begin}`)
    const end = begin + said.lines * said.segment
    if (end > image.length) throw new Error(`column ${i} ends at ${end}, its device at ${image.length}`)
    return image.subarray(begin, end)
  })
  if (shape === null) throw new Error('no column to look at')
  const { originals, segment, lines } = shape as { originals: number; segment: number; lines: number }
  return { originals, segment, lines, columns }
}

/** Where a column's own description is, in bytes. */
const startOf = (image: Buffer): number => {
  for (let at = 0; at + BLOCK <= image.length; at += BLOCK) if (image.readUInt32LE(at + AT.magic) === MAGIC) return at
  throw new Error('no header of a RAID5 column')
}

/** Whole blocks, so that words are aligned. */
const wordsOf = (b: Buffer): Int32Array =>
  new Int32Array(b.buffer, b.byteOffset, b.length / Int32Array.BYTES_PER_ELEMENT)

const xorInto = (into: Buffer, from: Buffer): void => {
  const to = wordsOf(into)
  const by = wordsOf(from)
  for (let i = 0; i < to.length; i++) to[i] = (to[i] ?? 0) ^ (by[i] ?? 0)
}

const segmentAt = (column: Buffer, line: number, bytes: number): Buffer =>
  column.subarray(line * bytes, (line + 1) * bytes)

/** Lines whose columns do not add up to nothing. @throws when a column is not there */
export const wrongParity = ({ columns, lines, segment }: ColumnsOnDisk): readonly number[] => {
  const wrong: number[] = []
  for (let line = 0; line < lines; line++) {
    const sum = Buffer.alloc(segment)
    for (const [i, c] of columns.entries()) {
      if (c === null) throw new Error(`column ${i} is not there`)
      xorInto(sum, segmentAt(c, line, segment))
    }
    if (wordsOf(sum).some((word) => word !== 0)) wrong.push(line)
  }
  return wrong
}

/** The address space, not rounded to cylinders; what a missing column would have is what the others say. */
export const volumeOf = ({ originals, columns, lines, segment }: ColumnsOnDisk): Buffer => {
  const [gone = -1, ...more] = columns.flatMap((c, i) => (c === null ? [i] : []))
  if (more.length > 0) throw new Error('more than one column is missing')
  const whole = columns.map((c) => c ?? Buffer.alloc(lines * segment))
  const target = whole[gone]
  if (target !== undefined) for (const [i, c] of whole.entries()) if (i !== gone) xorInto(target, c)
  const pieces = segmentsOf(originals, columns.length, lines).map(([line, column]) =>
    segmentAt(whole[column] ?? Buffer.alloc(0), line, segment),
  )
  return Buffer.concat(pieces)
}

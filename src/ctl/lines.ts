/**
 * Line framing of the control socket, shared by client and daemon. Invariants:
 * - at most `max` bytes of an unfinished line are ever held; what exceeds it is dropped as it arrives;
 * - bytes are cut at newlines before they are decoded, so a UTF-8 character split between two chunks survives;
 * - a bad line (too long, not UTF-8, not a JSON object) yields one problem and the next line is read normally:
 *   whether to go on or hang up is the caller's choice.
 */
import type { Reply, Request } from './protocol.js'
import { MAX_LINE_BYTES } from './protocol.js'

/** A JSON object from the peer: its fields are still unknown and are checked by whoever takes them. */
export type LineObject = Readonly<Record<string, unknown>>
export type LineProblem = 'tooLong' | 'notUtf8' | 'notJson'
export type Line =
  { readonly kind: 'object'; readonly value: LineObject } | { readonly kind: 'problem'; readonly problem: LineProblem }

export const LINE_PROBLEM_TEXT: Readonly<Record<LineProblem, string>> = {
  tooLong: 'line too long',
  notUtf8: 'line is not UTF-8',
  notJson: 'line is not a JSON object',
}

const NEWLINE = 0x0a
const NOTHING = new Uint8Array(0)
type Utf8 = InstanceType<typeof TextDecoder>

/** Incremental reader: feed it chunks of any size, get the lines they completed. */
export class LineReader {
  readonly #max: number
  readonly #utf8: Utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
  #buffer: Uint8Array = NOTHING
  #held = 0
  #skipping = false

  constructor(max: number = MAX_LINE_BYTES) {
    this.#max = max
  }

  /** Bytes held of an unfinished line: never more than the bound. */
  get heldBytes(): number {
    return this.#held
  }

  push(chunk: Uint8Array): Line[] {
    const lines: Line[] = []
    let from = 0
    while (from < chunk.length) {
      const newline = chunk.indexOf(NEWLINE, from)
      const to = newline < 0 ? chunk.length : newline
      this.#take(chunk.subarray(from, to))
      if (newline < 0) break
      const line = this.#finish()
      if (line !== null) lines.push(line)
      from = newline + 1
    }
    return lines
  }

  /** The peer is done: true when it stopped in the middle of a line. */
  end(): boolean {
    const partial = this.#held > 0 || this.#skipping
    this.#reset()
    return partial
  }

  #take(piece: Uint8Array): void {
    if (this.#skipping || piece.length === 0) return
    if (this.#held + piece.length > this.#max) {
      this.#reset()
      this.#skipping = true
      return
    }
    const needed = this.#held + piece.length
    // Doubled, so that a line that comes byte by byte costs no more than one that comes at once.
    if (needed > this.#buffer.length) {
      const larger = new Uint8Array(Math.min(this.#max, Math.max(needed, 2 * this.#buffer.length)))
      larger.set(this.#buffer.subarray(0, this.#held))
      this.#buffer = larger
    }
    // Copied: a view would keep the whole chunk of the socket alive, which is more than the bound.
    this.#buffer.set(piece, this.#held)
    this.#held = needed
  }

  #finish(): Line | null {
    if (this.#skipping) {
      this.#reset()
      return { kind: 'problem', problem: 'tooLong' }
    }
    const bytes = this.#buffer.subarray(0, this.#held)
    this.#reset()
    return bytes.length === 0 ? null : decode(this.#utf8, bytes)
  }

  #reset(): void {
    this.#buffer = NOTHING
    this.#held = 0
    this.#skipping = false
  }
}

const decode = (utf8: Utf8, bytes: Uint8Array): Line | null => {
  let text: string
  try {
    text = utf8.decode(bytes)
  } catch {
    return { kind: 'problem', problem: 'notUtf8' }
  }
  if (text.trim() === '') return null
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return { kind: 'problem', problem: 'notJson' }
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    return { kind: 'problem', problem: 'notJson' }
  return { kind: 'object', value: value as LineObject }
}

/** One line ready to send. JSON escapes newlines, so the text holds exactly one. */
export const encodeLine = (value: Request | Reply): string => `${JSON.stringify(value)}\n`

/** True when the encoded line is one the peer will take. */
export const fitsLine = (line: string): boolean => Buffer.byteLength(line) - 1 <= MAX_LINE_BYTES

/**
 * Option payloads in, reply frames out. Everything here is a total function of bytes: malformed
 * input is a Result, never an exception, and no length is believed before it was checked against
 * the bytes that are there.
 */
import { err, ok, type Result } from '../base/result.js'
import { MAX_STRING_BYTES, OPT, REP, REPLY_MAGIC } from './constants.js'

export interface OptionError {
  readonly reply: number
  readonly text: string
}

const invalid = (text: string): Result<never, OptionError> => err({ reply: REP.errInvalid, text })
const tooBig = (text: string): Result<never, OptionError> => err({ reply: REP.errTooBig, text })

const utf8 = new TextDecoder('utf-8', { fatal: true })

/** A protocol string: UTF-8, no NUL, at most 4096 bytes. */
export const decodeString = (bytes: Buffer): Result<string, OptionError> => {
  if (bytes.length > MAX_STRING_BYTES) return tooBig('string longer than 4096 bytes')
  if (bytes.includes(0)) return invalid('string contains NUL')
  try {
    return ok(utf8.decode(bytes))
  } catch {
    return invalid('string is not UTF-8')
  }
}

/** A 32-bit length and that many bytes; the caller gets the offset behind them. */
const sizedString = (data: Buffer, at: number): Result<{ text: string; next: number }, OptionError> => {
  if (data.length - at < 4) return invalid('option data too short')
  const length = data.readUInt32BE(at)
  if (length > MAX_STRING_BYTES) return tooBig('string longer than 4096 bytes')
  if (data.length - at - 4 < length) return invalid('string longer than the option data')
  const text = decodeString(data.subarray(at + 4, at + 4 + length))
  return text.ok ? ok({ text: text.value, next: at + 4 + length }) : text
}

export interface GoRequest {
  readonly name: string
  /** Information types asked for; unknown ones are kept and later ignored. */
  readonly wants: ReadonlySet<number>
}

/** INFO and GO: name, count, that many 16-bit information types, nothing else. */
export const decodeGo = (data: Buffer): Result<GoRequest, OptionError> => {
  const name = sizedString(data, 0)
  if (!name.ok) return name
  const { text, next } = name.value
  if (data.length - next < 2) return invalid('option data too short')
  const count = data.readUInt16BE(next)
  if (data.length - next - 2 !== count * 2) return invalid('information requests do not match the option length')
  const wants = new Set<number>()
  for (let i = 0; i < count; i++) wants.add(data.readUInt16BE(next + 2 + i * 2))
  return ok({ name: text, wants })
}

export interface ContextRequest {
  readonly name: string
  readonly queries: readonly string[]
}

/** LIST_META_CONTEXT and SET_META_CONTEXT: name, count, that many queries, nothing else. */
export const decodeContexts = (data: Buffer): Result<ContextRequest, OptionError> => {
  const name = sizedString(data, 0)
  if (!name.ok) return name
  let at = name.value.next
  if (data.length - at < 4) return invalid('option data too short')
  const count = data.readUInt32BE(at)
  at += 4
  // Each query takes at least its length field, so a lying count cannot make the loop long.
  if (count > (data.length - at) / 4) return invalid('query count does not match the option length')
  const queries: string[] = []
  for (let i = 0; i < count; i++) {
    const query = sizedString(data, at)
    if (!query.ok) return query
    queries.push(query.value.text)
    at = query.value.next
  }
  if (at !== data.length) return invalid('bytes behind the last query')
  return ok({ name: name.value.text, queries })
}

export const encodeReply = (option: number, type: number, data: Buffer = Buffer.alloc(0)): Buffer => {
  const head = Buffer.alloc(20)
  head.writeBigUInt64BE(REPLY_MAGIC, 0)
  head.writeUInt32BE(option, 8)
  head.writeUInt32BE(type, 12)
  head.writeUInt32BE(data.length, 16)
  return Buffer.concat([head, data])
}

export const encodeError = (option: number, error: OptionError): Buffer =>
  encodeReply(option, error.reply, Buffer.from(error.text, 'utf8'))

/** Cuts at a character boundary: a cut inside a character would not be UTF-8 any more. */
export const boundedText = (text: string): Buffer => {
  const bytes = Buffer.from(text, 'utf8')
  if (bytes.length <= MAX_STRING_BYTES) return bytes
  let end = MAX_STRING_BYTES
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--
  return bytes.subarray(0, end)
}

export const encodeServer = (name: string, description: string): Buffer => {
  const text = boundedText(name)
  const length = Buffer.alloc(4)
  length.writeUInt32BE(text.length, 0)
  return encodeReply(OPT.list, REP.server, Buffer.concat([length, text, boundedText(description)]))
}

export const encodeInfo = (option: number, type: number, data: Buffer): Buffer => {
  const head = Buffer.alloc(2)
  head.writeUInt16BE(type, 0)
  return encodeReply(option, REP.info, Buffer.concat([head, data]))
}

export const encodeContext = (option: number, id: number, name: string): Buffer => {
  const head = Buffer.alloc(4)
  head.writeUInt32BE(id, 0)
  return encodeReply(option, REP.metaContext, Buffer.concat([head, Buffer.from(name, 'utf8')]))
}

/** Builds the client's side of a handshake and takes the server's side apart, byte for byte. */
import * as nbd from '../../src/nbd/constants.js'
import { HANDSHAKE_DEFAULTS, initialState, step, type Effect, type HandshakeConfig } from '../../src/nbd/handshake.js'
import type { ExportInfo, ExportTable } from '../../src/nbd/types.js'

export const u16 = (n: number): Buffer => {
  const b = Buffer.alloc(2)
  b.writeUInt16BE(n)
  return b
}
export const u32 = (n: number): Buffer => {
  const b = Buffer.alloc(4)
  b.writeUInt32BE(n)
  return b
}
export const u64 = (n: bigint): Buffer => {
  const b = Buffer.alloc(8)
  b.writeBigUInt64BE(n)
  return b
}
export const sized = (text: string): Buffer => Buffer.concat([u32(Buffer.byteLength(text)), Buffer.from(text)])

export const FIXED = nbd.HANDSHAKE_FIXED_NEWSTYLE
export const MODERN = nbd.HANDSHAKE_FIXED_NEWSTYLE | nbd.HANDSHAKE_NO_ZEROES
export const clientFlags = (flags: number): Buffer => u32(flags)
export const option = (number: number, data: Buffer = Buffer.alloc(0)): Buffer =>
  Buffer.concat([u64(nbd.OPTION_MAGIC), u32(number), u32(data.length), data])
export const goData = (name: string, wants: readonly number[] = []): Buffer =>
  Buffer.concat([sized(name), u16(wants.length), ...wants.map(u16)])
export const contextData = (name: string, queries: readonly string[]): Buffer =>
  Buffer.concat([sized(name), u32(queries.length), ...queries.map(sized)])

export const exportInfo = (over: Partial<ExportInfo> = {}): ExportInfo => ({
  name: 'd0',
  description: 'a stripe',
  sizeBytes: 1_048_576n,
  readOnly: false,
  minBlockBytes: 1,
  preferredBlockBytes: 4096,
  trims: true,
  maxRequestBytes: 33_554_432,
  device: 0,
  ...over,
})

/** d0, its raw twin and a read-only d1. */
export const sampleTable: ExportTable = {
  lookup: (name) => {
    if (name === 'd0' || name === 'dsk/d0') return exportInfo()
    if (name === 'rdsk/d0') return exportInfo({ name: 'rdsk/d0', minBlockBytes: 512 })
    if (name === 'd1') return exportInfo({ name: 'd1', readOnly: true, device: 1 })
    return undefined
  },
  list: () => [exportInfo(), exportInfo({ name: 'd1', readOnly: true, device: 1 })],
}

export const sampleConfig: HandshakeConfig = { exports: sampleTable, ...HANDSHAKE_DEFAULTS }

export interface Outcome {
  readonly output: Buffer
  readonly effect: Effect
  /** Replies of the steps, in order; the longest is what one step may queue. */
  readonly replies: readonly Buffer[]
}

/** Runs the machine as a listener would: `again` is followed at once. Input after the end is residual. */
export const run = (pieces: readonly Buffer[], config: HandshakeConfig = sampleConfig): Outcome => {
  let state = initialState
  let effect: Effect = { kind: 'read' }
  const replies: Buffer[] = []
  for (const [index, piece] of pieces.entries()) {
    let bytes = piece
    do {
      const result = step(config, state, bytes)
      ;({ state, effect } = result)
      replies.push(result.reply)
      bytes = Buffer.alloc(0)
    } while (effect.kind === 'again')
    if (effect.kind === 'handover') {
      effect = { ...effect, residual: Buffer.concat([effect.residual, ...pieces.slice(index + 1)]) }
      break
    }
    if (effect.kind !== 'read') break
  }
  return { output: Buffer.concat(replies), effect, replies }
}

export interface Reply {
  readonly option: number
  readonly type: number
  readonly data: Buffer
}

/** Takes a stream of option replies apart; throws when a byte does not fit. */
export const parseReplies = (bytes: Buffer): Reply[] => {
  const replies: Reply[] = []
  let at = 0
  while (at < bytes.length) {
    if (bytes.length - at < 20) throw new Error('short reply header')
    if (bytes.readBigUInt64BE(at) !== nbd.REPLY_MAGIC) throw new Error('bad reply magic')
    const length = bytes.readUInt32BE(at + 16)
    if (bytes.length - at - 20 < length) throw new Error('short reply')
    replies.push({
      option: bytes.readUInt32BE(at + 8),
      type: bytes.readUInt32BE(at + 12),
      data: bytes.subarray(at + 20, at + 20 + length),
    })
    at += 20 + length
  }
  return replies
}

/** A modern client's opening followed by these options. */
export const haggle = (...options: readonly Buffer[]): Buffer => Buffer.concat([clientFlags(MODERN), ...options])

/**
 * Fixed newstyle negotiation as a pure machine: `(state, bytes) -> { state, reply, effect }`.
 *
 * Invariants
 * - No clock, socket or global state; the only things consulted are what the configuration's functions say of
 *   the moment: exports, places, the end of service.
 * - One step answers at most one option. `again` means bytes of a further one are already here, so
 *   the caller can write the reply (and wait until it is taken) before it asks for more: output is
 *   bounded by one reply, however many options a client sends at once.
 * - How the input is cut into pieces changes neither the replies nor the outcome.
 * - The state holds at most one option's header and data (plus what the caller fed with it).
 * - Bytes behind the option that ends the handshake are the client's first requests: `residual`.
 */
import type { NbdTerms } from '../dataplane/types.js'
import * as nbd from './constants.js'
import { OPT, REP } from './constants.js'
import { listContexts, selectContexts, type Context } from './contexts.js'
import * as options from './options.js'
import type { ExportInfo, ExportTable, Handover } from './types.js'

export interface HandshakeConfig {
  readonly exports: ExportTable
  /** Asked when a client wants to be served: as many as are allowed are served already. */
  readonly full: () => boolean
  /** Asked before every option: nobody is served any more. */
  readonly stopping: () => boolean
  /** `unsupported`: no TLS in this server; `disabled`: refused by its administrator; `available`: a hook takes over. */
  readonly tls: 'unsupported' | 'disabled' | 'available'
  /** Options one client may send; one more ends the connection. */
  readonly maxOptions: number
  /** Option data kept in memory; longer data is answered with TOO_BIG and skipped. */
  readonly maxOptionBytes: number
  /** Option data that is skipped; longer data ends the connection. */
  readonly maxSkipBytes: number
}

export const HANDSHAKE_DEFAULTS = {
  full: () => false,
  stopping: () => false,
  tls: 'unsupported',
  maxOptions: 256,
  maxOptionBytes: 16384,
  maxSkipBytes: 1 << 20,
} as const

interface Selection {
  readonly exportName: string
  readonly contexts: readonly Context[]
}

export interface HandshakeState {
  readonly phase: 'clientFlags' | 'options' | 'ended'
  readonly pending: Buffer
  /** Bytes of a refused option still to be thrown away. */
  readonly skip: number
  readonly optionCount: number
  readonly fixed: boolean
  readonly noZeroes: boolean
  readonly structured: boolean
  readonly extended: boolean
  readonly selection: Selection | null
}

export type Effect =
  | { readonly kind: 'read' }
  | { readonly kind: 'again' }
  | { readonly kind: 'handover'; readonly handover: Handover; readonly residual: Buffer }
  | { readonly kind: 'startTls' }
  /** `abort` is the client's orderly goodbye; anything else is its fault. */
  | { readonly kind: 'close'; readonly reason: string; readonly orderly: boolean }

export interface Step {
  readonly state: HandshakeState
  readonly reply: Buffer
  readonly effect: Effect
}

const NOTHING: Buffer = Buffer.alloc(0)
const OPTION_HEADER_BYTES = 16
const ZERO_PADDING_BYTES = 124

export const initialState: HandshakeState = {
  phase: 'clientFlags',
  pending: NOTHING,
  skip: 0,
  optionCount: 0,
  fixed: false,
  noZeroes: false,
  structured: false,
  extended: false,
  selection: null,
}

/** What the server says first. */
export const greeting = (): Buffer => {
  const out = Buffer.alloc(18)
  out.writeBigUInt64BE(nbd.NBD_MAGIC, 0)
  out.writeBigUInt64BE(nbd.OPTION_MAGIC, 8)
  out.writeUInt16BE(nbd.HANDSHAKE_FIXED_NEWSTYLE | nbd.HANDSHAKE_NO_ZEROES, 16)
  return out
}

export const transmissionFlags = (info: ExportInfo, structured: boolean): number => {
  const { FLAG } = nbd
  let flags = FLAG.hasFlags | FLAG.sendFlush | FLAG.canMultiConn | FLAG.sendCache
  if (structured) flags |= FLAG.sendDf
  if (info.readOnly) return flags | FLAG.readOnly
  if (info.trims) flags |= FLAG.sendTrim
  return flags | FLAG.sendFua | FLAG.sendWriteZeroes | FLAG.sendFastZero
}

const close = (state: HandshakeState, reason: string, orderly = false, reply = NOTHING): Step => ({
  state: { ...state, phase: 'ended', pending: NOTHING },
  reply,
  effect: { kind: 'close', reason, orderly },
})

/** Ends a step: the next option may be here already, in whole or in part. */
const next = (state: HandshakeState, reply: Buffer): Step => ({
  state,
  reply,
  effect: { kind: state.pending.length > 0 ? 'again' : 'read' },
})

const refuse = (state: HandshakeState, option: number, reply: number, text: string): Step =>
  next(state, options.encodeError(option, { reply, text }))

const ack = (state: HandshakeState, option: number): Step => next(state, options.encodeReply(option, REP.ack))

const handover = (state: HandshakeState, info: ExportInfo, reply: Buffer): Step => {
  const contexts = state.selection?.exportName === info.name ? state.selection.contexts : []
  const terms: NbdTerms = {
    structuredReplies: state.structured || state.extended,
    extendedHeaders: state.extended,
    contexts,
    readOnly: info.readOnly,
    minBlockBytes: info.minBlockBytes,
  }
  return {
    state: { ...state, phase: 'ended', pending: NOTHING },
    reply,
    effect: { kind: 'handover', handover: { export: info, terms }, residual: state.pending },
  }
}

const exportName = (config: HandshakeConfig, state: HandshakeState, data: Buffer): Step => {
  // This option has no error reply, so every refusal is a disconnect.
  if (state.extended) return close(state, 'EXPORT_NAME after extended headers')
  const name = options.decodeString(data)
  if (!name.ok) return close(state, `EXPORT_NAME: ${name.error.text}`)
  const info = config.exports.lookup(name.value)
  if (info === undefined) return close(state, 'EXPORT_NAME: no such export')
  if (info.refusal !== undefined) return close(state, `EXPORT_NAME: ${info.refusal}`)
  if (config.full()) return close(state, 'EXPORT_NAME: too many clients')
  const reply = Buffer.alloc(10 + (state.noZeroes ? 0 : ZERO_PADDING_BYTES))
  reply.writeBigUInt64BE(info.sizeBytes, 0)
  reply.writeUInt16BE(transmissionFlags(info, state.structured), 8)
  return handover(state, info, reply)
}

const go = (config: HandshakeConfig, state: HandshakeState, option: number, data: Buffer): Step => {
  const request = options.decodeGo(data)
  if (!request.ok) return next(state, options.encodeError(option, request.error))
  const info = config.exports.lookup(request.value.name)
  if (info === undefined) return refuse(state, option, REP.errUnknown, 'no such export')
  if (info.refusal !== undefined) return refuse(state, option, REP.errUnknown, info.refusal)
  if (option === OPT.go && config.full())
    return refuse(state, option, REP.errPolicy, 'too many clients, try again later')
  const size = Buffer.alloc(10)
  size.writeBigUInt64BE(info.sizeBytes, 0)
  size.writeUInt16BE(transmissionFlags(info, state.structured || state.extended), 8)
  const parts = [options.encodeInfo(option, nbd.INFO.export, size)]
  const { wants } = request.value
  if (wants.has(nbd.INFO.name)) parts.push(options.encodeInfo(option, nbd.INFO.name, options.boundedText(info.name)))
  if (wants.has(nbd.INFO.description))
    parts.push(options.encodeInfo(option, nbd.INFO.description, options.boundedText(info.description)))
  // Sent unasked too: a client that did not ask may still profit, and need not read it.
  const sizes = Buffer.alloc(12)
  sizes.writeUInt32BE(info.minBlockBytes, 0)
  sizes.writeUInt32BE(info.preferredBlockBytes, 4)
  sizes.writeUInt32BE(info.maxRequestBytes, 8)
  parts.push(options.encodeInfo(option, nbd.INFO.blockSize, sizes), options.encodeReply(option, REP.ack))
  const reply = Buffer.concat(parts)
  return option === OPT.go ? handover(state, info, reply) : next(state, reply)
}

const metaContext = (config: HandshakeConfig, before: HandshakeState, option: number, data: Buffer): Step => {
  const setting = option === OPT.setMetaContext
  // A failed SET leaves nothing selected, so that a client cannot mistake old terms for new ones.
  const state = setting ? { ...before, selection: null } : before
  if (!state.structured && !state.extended)
    return refuse(state, option, REP.errInvalid, 'metadata contexts need structured replies')
  const request = options.decodeContexts(data)
  if (!request.ok) return next(state, options.encodeError(option, request.error))
  const info = config.exports.lookup(request.value.name)
  if (info === undefined) return refuse(state, option, REP.errUnknown, 'no such export')
  const contexts = setting ? selectContexts(request.value.queries) : listContexts(request.value.queries)
  const replies = contexts.map((c) => options.encodeContext(option, setting ? c.id : 0, c.name))
  const after = setting ? { ...state, selection: { exportName: info.name, contexts } } : state
  return next(after, Buffer.concat([...replies, options.encodeReply(option, REP.ack)]))
}

const startTls = (config: HandshakeConfig, state: HandshakeState): Step => {
  if (config.tls === 'unsupported') return refuse(state, OPT.startTls, REP.errUnsup, 'TLS is not supported')
  if (config.tls === 'disabled') return refuse(state, OPT.startTls, REP.errPolicy, 'TLS is disabled')
  // Plain text sent ahead of the TLS handshake could be injected into the protected session.
  if (state.pending.length > 0) return close(state, 'data behind STARTTLS')
  // What was agreed in the clear is forgotten.
  const fresh: HandshakeState = {
    ...initialState,
    phase: 'options',
    fixed: state.fixed,
    noZeroes: state.noZeroes,
    optionCount: state.optionCount,
  }
  return { state: fresh, reply: options.encodeReply(OPT.startTls, REP.ack), effect: { kind: 'startTls' } }
}

const DATALESS: ReadonlySet<number> = new Set([OPT.list, OPT.startTls, OPT.structuredReply, OPT.extendedHeaders])
const KNOWN: ReadonlySet<number> = new Set(Object.values(OPT))

const answer = (config: HandshakeConfig, state: HandshakeState, option: number, data: Buffer): Step => {
  if (option !== OPT.abort && config.stopping()) {
    if (option === OPT.exportName) return close(state, 'EXPORT_NAME: stopping')
    return refuse(state, option, REP.errShutdown, 'metad is stopping')
  }
  if (DATALESS.has(option) && data.length > 0)
    return refuse(state, option, REP.errInvalid, 'this option carries no data')
  switch (option) {
    case OPT.exportName:
      return exportName(config, state, data)
    case OPT.abort:
      return close(state, 'client aborted', true, options.encodeReply(option, REP.ack))
    case OPT.list: {
      const names = config.exports.list().map((e) => options.encodeServer(e.name, e.description))
      return next(state, Buffer.concat([...names, options.encodeReply(option, REP.ack)]))
    }
    case OPT.startTls:
      return startTls(config, state)
    case OPT.info:
    case OPT.go:
      return go(config, state, option, data)
    case OPT.structuredReply:
      if (state.extended) return refuse(state, option, REP.errExtHeaderReqd, 'extended headers are in force')
      if (state.structured) return refuse(state, option, REP.errInvalid, 'structured replies are in force')
      return ack({ ...state, structured: true }, option)
    case OPT.listMetaContext:
    case OPT.setMetaContext:
      return metaContext(config, state, option, data)
    case OPT.extendedHeaders:
      if (state.extended) return refuse(state, option, REP.errInvalid, 'extended headers are in force')
      return ack({ ...state, extended: true }, option)
    default:
      return refuse(state, option, REP.errUnsup, 'option not supported')
  }
}

const clientFlags = (state: HandshakeState): Step => {
  if (state.pending.length < 4) return { state, reply: NOTHING, effect: { kind: 'read' } }
  const flags = state.pending.readUInt32BE(0)
  const known = nbd.HANDSHAKE_FIXED_NEWSTYLE | nbd.HANDSHAKE_NO_ZEROES
  if ((flags & ~known) !== 0) return close(state, 'unknown client flags')
  const fixed = (flags & nbd.HANDSHAKE_FIXED_NEWSTYLE) !== 0
  const noZeroes = (flags & nbd.HANDSHAKE_NO_ZEROES) !== 0
  return next({ ...state, phase: 'options', pending: state.pending.subarray(4), fixed, noZeroes }, NOTHING)
}

const oneOption = (config: HandshakeConfig, state: HandshakeState): Step => {
  const wait: Step = { state, reply: NOTHING, effect: { kind: 'read' } }
  const { pending } = state
  // Garbage is recognised by its first bytes; there is no need to wait for sixteen of them.
  const seen = Math.min(pending.length, 8)
  if (!pending.subarray(0, seen).equals(OPTION_MAGIC_BYTES.subarray(0, seen))) return close(state, 'bad option magic')
  if (pending.length < OPTION_HEADER_BYTES) return wait
  const option = pending.readUInt32BE(8)
  const length = pending.readUInt32BE(12)
  if (state.optionCount >= config.maxOptions) return close(state, 'too many options')
  if (!state.fixed && option !== OPT.exportName) return close(state, 'option without fixed newstyle')
  if (length > config.maxSkipBytes) return close(state, 'option data too long')
  const limit = option === OPT.exportName ? nbd.MAX_STRING_BYTES : config.maxOptionBytes
  const counted = { ...state, optionCount: state.optionCount + 1 }
  if (length > limit) {
    if (option === OPT.exportName) return close(state, 'export name too long')
    // Answered at once; its data goes by unread.
    const skipping = { ...counted, pending: pending.subarray(OPTION_HEADER_BYTES), skip: length }
    const selection = option === OPT.setMetaContext ? null : state.selection
    const [reply, text] = KNOWN.has(option)
      ? [REP.errTooBig, 'option data too long']
      : [REP.errUnsup, 'option not supported']
    return refuse(dropSkipped({ ...skipping, selection }), option, reply, text)
  }
  const end = OPTION_HEADER_BYTES + length
  if (pending.length < end) return wait
  return answer(
    config,
    { ...counted, pending: pending.subarray(end) },
    option,
    pending.subarray(OPTION_HEADER_BYTES, end),
  )
}

const OPTION_MAGIC_BYTES = ((): Buffer => {
  const out = Buffer.alloc(8)
  out.writeBigUInt64BE(nbd.OPTION_MAGIC, 0)
  return out
})()

const dropSkipped = (state: HandshakeState): HandshakeState => {
  const drop = Math.min(state.skip, state.pending.length)
  return drop === 0 ? state : { ...state, skip: state.skip - drop, pending: state.pending.subarray(drop) }
}

/** Feed bytes (or none, after `again`). After `handover`, `startTls` or `close` the caller owns the connection. */
export const step = (config: HandshakeConfig, before: HandshakeState, bytes: Buffer): Step => {
  if (before.phase === 'ended') return close(before, 'input after the end')
  const pending = before.pending.length === 0 ? bytes : Buffer.concat([before.pending, bytes])
  const state = dropSkipped({ ...before, pending })
  if (state.pending.length === 0) return { state, reply: NOTHING, effect: { kind: 'read' } }
  return state.phase === 'clientFlags' ? clientFlags(state) : oneOption(config, state)
}

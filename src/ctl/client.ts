/**
 * The commands' end of the control socket: one connection, one Request line, Reply lines until `done`.
 * The answer either ends with `done` or is an error: a server that hangs up early, sends garbage or
 * answers something that is not a Reply is reported, never taken for success. Only connecting has a
 * timeout, because a resync may rightly be silent for hours.
 */
import { createConnection, type Socket } from 'node:net'
import { err, ok } from '../base/result.js'
import { type MetaError, type MetaResult, metaError } from '../msg/errors.js'
import { LINE_PROBLEM_TEXT, type LineObject, LineReader, encodeLine, fitsLine } from './lines.js'
import type { Reply, Request } from './protocol.js'

export interface AskOptions {
  readonly socketPath: string
  readonly connectTimeoutMs?: number
  /** Aborting hangs up; what the daemon has begun goes on. */
  readonly signal?: AbortSignal
}
/** The exit status of `done`; `detached` when the caller hung up first. */
export type Outcome = { readonly kind: 'done'; readonly status: number } | { readonly kind: 'detached' }

const CONNECT_TIMEOUT_MS = 5000

type Check = (value: unknown) => boolean
const isString: Check = (v) => typeof v === 'string'
const isNumber: Check = (v) => typeof v === 'number' && Number.isFinite(v)
const isArray: Check = (v) => Array.isArray(v)
const isStrings: Check = (v) => Array.isArray(v) && v.every(isString)
const isObject = (v: unknown): v is LineObject => typeof v === 'object' && v !== null && !Array.isArray(v)

/** Outer shape only: metad is the same release, this catches a wrong server, not a malicious one. */
const REPLY_FIELDS: { readonly [R in Reply['reply']]: Readonly<Record<string, Check>> } = {
  change: { change: (v) => isObject(v) && isString(v['change']) },
  warning: { lines: isStrings },
  error: { error: (v) => isObject(v) && isString(v['code']) },
  progress: { name: isString, done: isNumber, total: isNumber },
  verified: { report: (v) => isObject(v) && isString(v['name']) && isArray(v['ranges']) },
  stat: { report: (v) => isObject(v) && isArray(v['units']) && isStrings(v['show']) && isArray(v['relocation']) },
  replicas: { replicas: isArray },
  pong: { version: isNumber },
  done: { status: (v) => Number.isInteger(v) },
}

export const decodeReply = (value: LineObject): Reply | null => {
  const kind = value['reply']
  if (!isString(kind) || !Object.hasOwn(REPLY_FIELDS, kind as string)) return null
  const fields = REPLY_FIELDS[kind as Reply['reply']]
  return Object.entries(fields).every(([name, check]) => check(value[name])) ? (value as unknown as Reply) : null
}

const connectError = (e: NodeJS.ErrnoException, path: string): MetaError => {
  switch (e.code) {
    case 'EACCES':
    case 'EPERM':
      return metaError('notRoot')
    case 'ENOENT':
      return metaError('daemonAbsent', undefined, `no socket ${path}; start it with: metad --daemon`)
    case 'ECONNREFUSED':
      return metaError('daemonAbsent', undefined, `nobody answers at ${path}; start it with: metad --daemon`)
    default:
      return metaError('daemonAbsent', undefined, `${path}: ${e.code ?? e.message}`)
  }
}

const protocolError = (text: string): MetaError => metaError('protocol', undefined, text)

/** Sends one request and hands over every reply but `done` in order. */
export const ask = (
  request: Request,
  onReply: (reply: Exclude<Reply, { reply: 'done' }>) => void,
  options: AskOptions,
): Promise<MetaResult<Outcome>> =>
  new Promise((resolve, reject) => {
    const line = encodeLine(request)
    if (!fitsLine(line)) {
      resolve(err(protocolError('request too long')))
      return
    }
    const { signal } = options
    if (signal?.aborted === true) {
      resolve(ok({ kind: 'detached' }))
      return
    }
    const socket: Socket = createConnection({ path: options.socketPath })
    const reader = new LineReader()
    let connected = false
    let settled = false
    const timer = setTimeout(
      () => settle(err(metaError('daemonAbsent', undefined, `${options.socketPath}: no answer`))),
      options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS,
    )
    const abort = (): void => settle(ok({ kind: 'detached' }))
    const settle = (result: MetaResult<Outcome>): void => {
      if (settled) return
      settled = true
      clearTimeout(timer)
      signal?.removeEventListener('abort', abort)
      socket.destroy()
      resolve(result)
    }
    signal?.addEventListener('abort', abort, { once: true })

    const take = (chunk: Buffer): void => {
      for (const read of reader.push(chunk)) {
        if (settled) return
        if (read.kind === 'problem') return settle(err(protocolError(LINE_PROBLEM_TEXT[read.problem])))
        const reply = decodeReply(read.value)
        if (reply === null) return settle(err(protocolError('not a reply of this release of metad')))
        if (reply.reply === 'done') return settle(ok({ kind: 'done', status: reply.status }))
        onReply(reply)
      }
    }
    socket.on('connect', () => {
      connected = true
      clearTimeout(timer)
      socket.write(line)
    })
    socket.on('data', (chunk) => {
      try {
        take(chunk)
      } catch (e) {
        // A printer failed: a bug of the command, so the caller gets the exception.
        settled = true
        socket.destroy()
        reject(e instanceof Error ? e : new Error(String(e)))
      }
    })
    // An answer may be read completely before the error of our late write arrives: settled wins.
    socket.on('error', (e: NodeJS.ErrnoException) => {
      settle(
        err(connected ? protocolError(`connection lost: ${e.code ?? e.message}`) : connectError(e, options.socketPath)),
      )
    })
    socket.on('close', () => {
      settle(err(protocolError(reader.end() ? 'answer cut short' : 'metad hung up before it had answered')))
    })
  })

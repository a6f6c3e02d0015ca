/**
 * A raw NBD client for tests: says exactly what it is told to, valid or not, and takes every reply
 * apart strictly. A byte that does not fit the protocol rejects everything outstanding.
 */
import { connect, type Socket } from 'node:net'
import * as nbd from '../../src/nbd/constants.js'
import { CHUNK, CMD, CMD_FLAG, OPT, REP } from '../../src/nbd/constants.js'
import { contextData, goData, MODERN, option, parseReplies, u32, type Reply } from './nbdsession.js'

export interface ConnectOptions {
  readonly name: string
  readonly structured?: boolean
  readonly extended?: boolean
  readonly contexts?: readonly string[]
  /** EXPORT_NAME instead of GO. */
  readonly oldGo?: boolean
  /** A request sent in one piece with the option that ends the handshake; its answer is `client.early`. */
  readonly early?: Request
}

export interface Extent {
  readonly context: number
  readonly length: bigint
  readonly flags: bigint
}

export interface Answer {
  /** NBD error number, 0 on success. */
  readonly error: number
  readonly data: Buffer
  readonly extents: readonly Extent[]
  readonly chunks: number
}

export interface Request {
  readonly command: number
  readonly flags?: number
  readonly offset?: bigint
  readonly length?: number
  readonly payload?: Buffer
}

interface Waiting {
  readonly request: Request
  data: Buffer[]
  extents: Extent[]
  error: number
  chunks: number
  resolve(answer: Answer): void
  reject(error: Error): void
}

/** Bytes as they arrive, and whoever waits for a number of them. */
class Input {
  readonly #parts: Buffer[] = []
  #length = 0
  #want: { readonly bytes: number; resolve(b: Buffer): void; reject(e: Error): void } | undefined
  #ended: Error | undefined

  constructor(socket: Socket) {
    const end = (e: Error): void => {
      this.#ended ??= e
      this.#want?.reject(this.#ended)
      this.#want = undefined
    }
    socket.on('data', (b: Buffer) => {
      this.#parts.push(b)
      this.#length += b.length
      this.#serve()
    })
    socket.on('error', end)
    socket.on('close', () => end(new Error('connection closed')))
  }

  take(bytes: number): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      this.#want = { bytes, resolve, reject }
      this.#serve()
      if (this.#ended !== undefined) this.#want?.reject(this.#ended)
    })
  }

  #serve(): void {
    const want = this.#want
    if (want === undefined || this.#length < want.bytes) return
    const all = this.#parts.length === 1 && this.#parts[0] !== undefined ? this.#parts[0] : Buffer.concat(this.#parts)
    const rest = all.subarray(want.bytes)
    this.#parts.splice(0, this.#parts.length, rest)
    this.#length = rest.length
    this.#want = undefined
    want.resolve(all.subarray(0, want.bytes))
  }
}

export class NbdClient {
  readonly socket: Socket
  readonly size: bigint
  readonly flags: number
  /** Contexts granted: name to id. */
  readonly contexts: ReadonlyMap<string, number>
  readonly closed: Promise<void>
  readonly early: Promise<Answer> | undefined
  readonly #input: Input
  readonly #structured: boolean
  readonly #extended: boolean
  readonly #waiting = new Map<bigint, Waiting>()
  #cookie = 0n
  #failed: Error | undefined

  private constructor(
    socket: Socket,
    input: Input,
    size: bigint,
    flags: number,
    contexts: ReadonlyMap<string, number>,
    options: ConnectOptions,
  ) {
    this.socket = socket
    this.#input = input
    this.size = size
    this.flags = flags
    this.contexts = contexts
    this.#extended = options.extended ?? false
    this.#structured = this.#extended || (options.structured ?? false)
    this.closed = new Promise((resolve) => {
      if (socket.destroyed) resolve()
      else socket.on('close', () => resolve())
    })
    if (options.early !== undefined) this.early = this.#expect(options.early, ++this.#cookie)
    this.#read().catch((e: unknown) => this.#fail(e instanceof Error ? e : new Error(String(e))))
  }

  /** Target: a unix socket path, or a port on loopback. Rejects with the server's reason. */
  static async open(target: string | number, options: ConnectOptions): Promise<NbdClient> {
    const socket = typeof target === 'string' ? connect(target) : connect(target, '127.0.0.1')
    const input = new Input(socket)
    try {
      const greeting = await input.take(18)
      if (greeting.readBigUInt64BE(0) !== nbd.NBD_MAGIC) throw new Error('not an NBD server')
      socket.write(u32(MODERN))
      const contexts = new Map<string, number>()
      const ask = async (number: number, data?: Buffer): Promise<readonly Reply[]> => {
        socket.write(option(number, data))
        return replies(input, number)
      }
      if (options.structured) await ask(OPT.structuredReply)
      if (options.extended) await ask(OPT.extendedHeaders)
      if (options.contexts !== undefined)
        for (const r of await ask(OPT.setMetaContext, contextData(options.name, options.contexts)))
          if (r.type === REP.metaContext) contexts.set(r.data.subarray(4).toString(), r.data.readUInt32BE(0))
      const early =
        options.early === undefined ? Buffer.alloc(0) : encodeRequest(options.early, 1n, options.extended ?? false)
      let info: Buffer | undefined
      if (options.oldGo) {
        socket.write(Buffer.concat([option(OPT.exportName, Buffer.from(options.name)), early]))
        info = await input.take(10)
      } else {
        socket.write(Buffer.concat([option(OPT.go, goData(options.name)), early]))
        const found = (await replies(input, OPT.go)).find((r) => r.type === REP.info && r.data.readUInt16BE(0) === 0)
        info = found?.data.subarray(2)
      }
      if (info === undefined) throw new Error('no export information')
      return new NbdClient(socket, input, info.readBigUInt64BE(0), info.readUInt16BE(8), contexts, options)
    } catch (e) {
      socket.destroy()
      throw e
    }
  }

  request(request: Request): Promise<Answer> {
    if (this.#failed !== undefined) return Promise.reject(this.#failed)
    const cookie = ++this.#cookie
    const answer = this.#expect(request, cookie)
    this.socket.write(this.encode(request, cookie))
    return answer
  }

  /** The bytes of a request, for tests that send them in other ways. */
  encode(request: Request, cookie: bigint): Buffer {
    return encodeRequest(request, cookie, this.#extended)
  }

  read(offset: bigint, length: number, flags = 0): Promise<Answer> {
    return this.request({ command: CMD.read, flags, offset, length })
  }
  write(offset: bigint, payload: Buffer, flags = 0): Promise<Answer> {
    return this.request({ command: CMD.write, flags, offset, payload })
  }
  flush(): Promise<Answer> {
    return this.request({ command: CMD.flush })
  }
  trim(offset: bigint, length: number, flags = 0): Promise<Answer> {
    return this.request({ command: CMD.trim, flags, offset, length })
  }
  zero(offset: bigint, length: number, flags = 0): Promise<Answer> {
    return this.request({ command: CMD.writeZeroes, flags, offset, length })
  }
  cache(offset: bigint, length: number): Promise<Answer> {
    return this.request({ command: CMD.cache, offset, length })
  }
  blockStatus(offset: bigint, length: number, flags = 0): Promise<Answer> {
    return this.request({ command: CMD.blockStatus, flags, offset, length })
  }
  /** Orderly goodbye; resolves when the server has closed. */
  async disconnect(): Promise<void> {
    this.socket.write(this.encode({ command: CMD.disconnect }, 0n))
    await this.closed
  }
  destroy(): void {
    this.socket.destroy()
  }

  #expect(request: Request, cookie: bigint): Promise<Answer> {
    return new Promise((resolve, reject) => {
      this.#waiting.set(cookie, { request, data: [], extents: [], error: 0, chunks: 0, resolve, reject })
    })
  }

  #fail(error: Error): void {
    this.#failed = error
    for (const waiting of this.#waiting.values()) waiting.reject(error)
    this.#waiting.clear()
    this.socket.destroy()
  }

  async #read(): Promise<never> {
    for (;;) {
      const magic = (await this.#input.take(4)).readUInt32BE(0)
      if (magic === nbd.SIMPLE_REPLY_MAGIC && !this.#extended) await this.#simple()
      else if (magic === nbd.STRUCTURED_REPLY_MAGIC && this.#structured && !this.#extended) await this.#chunk()
      else if (magic === nbd.EXTENDED_REPLY_MAGIC && this.#extended) await this.#chunk()
      else throw new Error(`reply magic ${magic.toString(16)} was not negotiated`)
    }
  }

  #find(cookie: bigint): Waiting {
    const waiting = this.#waiting.get(cookie)
    if (waiting === undefined) throw new Error(`reply to nothing asked: ${cookie}`)
    return waiting
  }

  #finish(cookie: bigint, w: Waiting): void {
    this.#waiting.delete(cookie)
    w.resolve({ error: w.error, data: Buffer.concat(w.data), extents: w.extents, chunks: w.chunks })
  }

  async #simple(): Promise<void> {
    const head = await this.#input.take(12)
    const cookie = head.readBigUInt64BE(4)
    const waiting = this.#find(cookie)
    waiting.error = head.readUInt32BE(0)
    const isRead = waiting.request.command === CMD.read
    if (isRead && this.#structured) throw new Error('simple reply to a read after structured replies')
    if (isRead && waiting.error === 0) waiting.data.push(await this.#input.take(waiting.request.length ?? 0))
    this.#finish(cookie, waiting)
  }

  async #chunk(): Promise<void> {
    const head = await this.#input.take(this.#extended ? 28 : 16)
    const flags = head.readUInt16BE(0)
    const type = head.readUInt16BE(2)
    const cookie = head.readBigUInt64BE(4)
    const length = this.#extended ? Number(head.readBigUInt64BE(20)) : head.readUInt32BE(12)
    const waiting = this.#find(cookie)
    if (this.#extended && head.readBigUInt64BE(12) !== (waiting.request.offset ?? 0n))
      throw new Error('reply does not echo the offset')
    waiting.chunks++
    const body = length > 0 ? await this.#input.take(length) : Buffer.alloc(0)
    if (type === CHUNK.offsetData) {
      const at = (waiting.request.offset ?? 0n) + BigInt(waiting.data.reduce((n, b) => n + b.length, 0))
      if (body.readBigUInt64BE(0) !== at) throw new Error('data chunk at another offset')
      waiting.data.push(body.subarray(8))
    } else if (type === CHUNK.offsetHole) waiting.data.push(Buffer.alloc(body.readUInt32BE(8)))
    else if (type === CHUNK.blockStatus) {
      for (let at = 4; at < body.length; at += 8)
        waiting.extents.push({
          context: body.readUInt32BE(0),
          length: BigInt(body.readUInt32BE(at)),
          flags: BigInt(body.readUInt32BE(at + 4)),
        })
    } else if (type === CHUNK.blockStatusExt) {
      if (body.readUInt32BE(4) !== (body.length - 8) / 16) throw new Error('extent count does not fit')
      for (let at = 8; at < body.length; at += 16)
        waiting.extents.push({
          context: body.readUInt32BE(0),
          length: body.readBigUInt64BE(at),
          flags: body.readBigUInt64BE(at + 8),
        })
    } else if ((type & 0x8000) !== 0) {
      if (body.length < 6 + body.readUInt16BE(4)) throw new Error('error chunk too short')
      waiting.error = body.readUInt32BE(0)
    } else if (type !== CHUNK.none) throw new Error(`unknown chunk ${type}`)
    if ((flags & nbd.CHUNK_DONE) !== 0) this.#finish(cookie, waiting)
  }
}

const encodeRequest = (request: Request, cookie: bigint, extended: boolean): Buffer => {
  const { command, flags = 0, offset = 0n, length = 0, payload } = request
  const head = Buffer.alloc(extended ? 32 : 28)
  const carries = extended && command === CMD.write ? CMD_FLAG.payloadLength : 0
  head.writeUInt32BE(extended ? nbd.EXTENDED_REQUEST_MAGIC : nbd.REQUEST_MAGIC, 0)
  head.writeUInt16BE(flags | carries, 4)
  head.writeUInt16BE(command, 6)
  head.writeBigUInt64BE(cookie, 8)
  head.writeBigUInt64BE(offset, 16)
  if (extended) head.writeBigUInt64BE(BigInt(payload?.length ?? length), 24)
  else head.writeUInt32BE(payload?.length ?? length, 24)
  return payload === undefined ? head : Buffer.concat([head, payload])
}

/** All replies to one option; rejects on an error reply. */
const replies = async (input: Input, number: number): Promise<readonly Reply[]> => {
  const all: Reply[] = []
  for (;;) {
    const head = await input.take(20)
    const length = head.readUInt32BE(16)
    const body = length > 0 ? await input.take(length) : Buffer.alloc(0)
    const [reply] = parseReplies(Buffer.concat([head, body]))
    if (reply === undefined || reply.option !== number) throw new Error('reply to another option')
    if (reply.type >= 0x80000000)
      throw new Error(`option ${number}: error ${reply.type - 0x80000000}: ${body.toString()}`)
    if (reply.type === REP.ack) return all
    all.push(reply)
  }
}

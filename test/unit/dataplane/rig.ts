/** An engine, temporary files behind it, and a client of raw NBD over a real unix socket. */
import { closeSync, mkdtempSync, openSync, readSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Blocks, blocks } from '../../../src/base/units.js'
import { takeSocketFd } from '../../../src/dataplane/handover.js'
import { loadDataPlane } from '../../../src/dataplane/native.js'
import type { DataPlane, NbdTerms } from '../../../src/dataplane/types.js'
import { PlanBuilder } from '../../../src/plan/builder.js'
import { encodePlan } from '../../../src/plan/encode.js'
import type { NativeEvent } from '../../../src/plan/events.js'
import type { ComponentId, OpenComponent } from '../../../src/plan/types.js'

export const BLOCKS = 8192
export const TERMS: NbdTerms = {
  structuredReplies: false,
  extendedHeaders: false,
  contexts: [],
  readOnly: false,
  minBlockBytes: 1,
}

export interface File {
  readonly path: string
  readonly component: OpenComponent
}

/** The dirty region log of a mirror. */
export interface Log {
  readonly regionBlocks: Blocks
  readonly dirty?: Uint8Array
  /** Slot of a side that waits for an optimized resync. */
  readonly stale?: number
}

export class Rig {
  readonly engine: DataPlane = loadDataPlane()
  readonly events: NativeEvent[] = []
  readonly directory = mkdtempSync(join(tmpdir(), 'metadisk-dp-'))
  readonly #server: Server = createServer()
  readonly #path = join(this.directory, 'sock')
  readonly #fds: number[] = []
  #wanted: (() => void)[] = []

  async start(threads = 2): Promise<void> {
    this.engine.start(
      {
        threads,
        queueDepth: 64,
        maxRequestBytes: 1 << 20,
        spinMicros: 20,
        regionSweepMillis: 100,
        raid5CacheBytes: 8 << 20,
      },
      () => {
        this.events.push(...this.engine.drain(1000))
        for (const wake of this.#wanted.splice(0)) wake()
      },
    )
    await new Promise<void>((resolve) => this.#server.listen(this.#path, resolve))
  }

  file(component: number): File {
    const path = join(this.directory, `file${component}`)
    writeFileSync(path, '')
    truncateSync(path, BLOCKS * 512)
    const fd = openSync(path, 'r+')
    this.#fds.push(fd)
    return {
      path,
      component: {
        component: component as ComponentId,
        fd,
        direct: false,
        align: 512,
        blockDevice: false,
        size: blocks(BLOCKS),
        timeoutMillis: 0,
      },
    }
  }

  install(device: number, files: readonly File[], mirror = false, generation = 1, log?: Log): Promise<void> {
    const plan = new PlanBuilder()
    const nodes = files.map((f) => plan.addComponent(f.component.component, blocks(0), blocks(BLOCKS)))
    if (mirror) {
      plan.addMirror(
        nodes.map((child, slot) => ({ child, slot, readable: true, writable: true, stale: log?.stale === slot })),
        blocks(BLOCKS),
        'roundrobin',
        'parallel',
        log?.regionBlocks ?? blocks(0),
      )
    } else {
      plan.addStripe(nodes.map((n) => ({ interlace: blocks(1024), blocks: blocks(BLOCKS), children: [n] })))
    }
    const bytes = encodePlan(plan.finish({ generation, labelled: false, readOnly: false }))
    return this.engine.install(
      device,
      bytes,
      files.map((f) => f.component),
      log?.dirty ?? null,
    )
  }

  /** A client whose connection the engine has taken over, with what the handshake read too far. */
  async connect(device: number, residual: Uint8Array = new Uint8Array(0)): Promise<{ socket: Socket; id: number }> {
    const accepted = new Promise<Socket>((resolve) => this.#server.once('connection', resolve))
    const socket = connect(this.#path)
    const theirs = await accepted
    const id = takeSocketFd(theirs, (fd) => this.engine.adopt(fd, device, TERMS, residual))
    return { socket, id }
  }

  async event(matches: (e: NativeEvent) => boolean): Promise<NativeEvent> {
    for (;;) {
      const found = this.events.find(matches)
      if (found !== undefined) return found
      await new Promise<void>((resolve) => this.#wanted.push(resolve))
    }
  }

  async close(): Promise<void> {
    await this.engine.stop()
    this.#server.close()
    for (const fd of this.#fds) closeSync(fd)
    rmSync(this.directory, { recursive: true, force: true })
  }
}

export const request = (command: number, offset: number, length: number, cookie: number): Buffer => {
  const out = Buffer.alloc(28)
  out.writeUInt32BE(0x25609513, 0)
  out.writeUInt16BE(command, 6)
  out.writeBigUInt64BE(BigInt(cookie), 8)
  out.writeBigUInt64BE(BigInt(offset), 16)
  out.writeUInt32BE(length, 24)
  return out
}

/** Exactly `length` bytes; fewer when the server hung up. */
export const receive = (socket: Socket, length: number): Promise<Buffer> =>
  new Promise((resolve) => {
    const attempt = (): void => {
      const got: unknown = socket.readableLength >= length ? socket.read(length) : null
      if (Buffer.isBuffer(got)) return finish(got)
      if (socket.readableEnded || socket.destroyed) finish(Buffer.alloc(0))
    }
    const finish = (bytes: Buffer): void => {
      socket.off('readable', attempt).off('end', attempt).off('close', attempt)
      resolve(bytes)
    }
    socket.on('readable', attempt).on('end', attempt).on('close', attempt)
    attempt()
  })

export const readAt = (file: File, offset: number, length: number): Buffer => {
  const out = Buffer.alloc(length)
  const fd = openSync(file.path, 'r')
  readSync(fd, out, 0, length, offset)
  closeSync(fd)
  return out
}

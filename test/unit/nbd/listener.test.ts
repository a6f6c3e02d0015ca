import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { spawnSync } from 'node:child_process'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { OPT, REP } from '../../../src/nbd/constants.js'
import { greeting } from '../../../src/nbd/handshake.js'
import { NbdListener, type NbdListenerOptions } from '../../../src/nbd/listener.js'
import type { Handover } from '../../../src/nbd/types.js'
import {
  clientFlags,
  exportInfo,
  goData,
  haggle,
  MODERN,
  option,
  parseReplies,
  sampleTable,
} from '../../tools/nbdsession.js'

interface Test {
  teardown(done: () => Promise<void>): void
}
const GREETING = greeting()

interface Rig {
  readonly listener: NbdListener
  readonly path: string
  readonly taken: { readonly socket: Socket; readonly handover: Handover; readonly residual: Buffer }[]
  readonly logs: string[]
}

const rig = async (t: Test, over: Partial<NbdListenerOptions> = {}): Promise<Rig> => {
  const dir = mkdtempSync(join(tmpdir(), 'nbd-'))
  const path = join(dir, 'nbd.sock')
  const taken: Rig['taken'] = []
  const logs: string[] = []
  const listener = new NbdListener({
    exports: sampleTable,
    handover: (socket, handover, residual) => taken.push({ socket, handover, residual }),
    active: () => taken.filter((c) => !c.socket.destroyed).length,
    log: (level, message) => logs.push(`${level} ${message}`),
    ...over,
  })
  await listener.listenUnix(path)
  t.teardown(async () => {
    for (const { socket } of taken) socket.destroy()
    await listener.close()
    rmSync(dir, { recursive: true, force: true })
  })
  return { listener, path, taken, logs }
}

interface Peer {
  readonly socket: Socket
  got(): Buffer
  readonly closed: Promise<void>
}

const dial = (target: string | number): Peer => {
  const socket = typeof target === 'string' ? connect(target) : connect(target, '127.0.0.1')
  const parts: Buffer[] = []
  socket.on('data', (b) => parts.push(b))
  socket.on('error', () => {})
  const closed = new Promise<void>((resolve) => socket.on('close', () => resolve()))
  return { socket, got: () => Buffer.concat(parts), closed }
}

const until = async (what: () => boolean, millis = 60_000): Promise<boolean> => {
  const end = Date.now() + millis
  while (Date.now() < end) {
    if (what()) return true
    await sleep(5)
  }
  return false
}

/** A well-behaved client gets through; used to see that nobody else was disturbed. */
const honest = async (target: string | number): Promise<number[]> => {
  const peer = dial(target)
  peer.socket.write(haggle(option(OPT.list), option(OPT.abort)))
  await peer.closed
  return parseReplies(peer.got().subarray(GREETING.length)).map((r) => r.type)
}
const HONEST = [REP.server, REP.server, REP.ack, REP.ack]

const descriptors = (): number => readdirSync('/proc/self/fd').length

t.test('handover: last reply first, residual complete, nothing read afterwards', async (t) => {
  const { path, taken, listener } = await rig(t)
  const peer = dial(path)
  const hello = haggle(option(OPT.structuredReply), option(OPT.go, goData('d0')))
  for (const byte of hello.subarray(0, 40)) {
    peer.socket.write(Buffer.from([byte]))
    await sleep(0)
  }
  peer.socket.write(Buffer.concat([hello.subarray(40), Buffer.from('early')]))
  t.ok(await until(() => taken.length === 1))
  const first = taken[0]
  t.match(first?.handover, { export: { name: 'd0' }, terms: { structuredReplies: true } })
  t.equal(first?.residual.toString(), 'early')
  t.ok(await until(() => parseReplies(peer.got().subarray(GREETING.length)).length === 4), 'client has the answer')
  peer.socket.write('late bytes')
  await sleep(50)
  t.equal(first?.socket.bytesRead, hello.length + 5, 'late bytes stayed in the kernel')
  t.equal(first?.socket.destroyed, false)
  t.match(listener.counts(), { handshakes: 0, handedOver: 1 })
  await listener.close()
  await sleep(20)
  t.equal(first?.socket.destroyed, false, 'a handed-over client outlives the listener')
})

t.test('residual is whole however the bytes arrive', async (t) => {
  const { path, taken } = await rig(t)
  const hello = haggle(option(OPT.list), option(OPT.go, goData('d0')))
  const payload = Buffer.alloc(40_000, 'payload.')
  const all = Buffer.concat([hello, payload])
  const peers: Peer[] = []
  for (let i = 0; i < 60; i++) {
    const peer = dial(path)
    peers.push(peer)
    const size = [1, 7, 16, 97, 997, 30_000, all.length][i % 7] ?? 1
    let at = 0
    for (; at < Math.min(all.length, 200); at += size) peer.socket.write(all.subarray(at, at + size))
    if (at < all.length) peer.socket.write(all.subarray(at))
  }
  t.ok(await until(() => taken.length === 60), `${taken.length} of 60`)
  let wrong = 0
  for (const { residual } of taken) if (!payload.subarray(0, residual.length).equals(residual)) wrong++
  t.equal(wrong, 0, 'residuals are prefixes of the payload')
  for (const { socket, residual } of taken) {
    const rest: Buffer[] = [residual]
    socket.on('data', (b: Buffer) => rest.push(b))
    Reflect.apply(
      Reflect.get(Reflect.get(socket, '_handle') as object, 'readStart') as () => void,
      Reflect.get(socket, '_handle'),
      [],
    )
    socket.resume()
    t.ok(await until(() => Buffer.concat(rest).length === payload.length), 'no byte lost')
    if (!Buffer.concat(rest).equals(payload)) wrong++
  }
  t.equal(wrong, 0)
  for (const p of peers) p.socket.destroy()
})

t.test('socket file: mode, stale, live, foreign, too long', async (t) => {
  const { path, listener } = await rig(t)
  t.equal(statSync(path).mode & 0o777, 0o600)
  const second = new NbdListener({ exports: sampleTable, handover: () => {}, active: () => 0, log: () => {} })
  await t.rejects(second.listenUnix(path), /in use/)
  t.same(await honest(path), HONEST, 'the live one was left alone')
  const plain = `${path}.txt`
  writeFileSync(plain, 'mine')
  await t.rejects(second.listenUnix(plain), /not a socket/)
  await t.rejects(second.listenUnix(`/tmp/${'x'.repeat(110)}`), /longer than 107/)
  const stale = `${path}.stale`
  const script = `require('net').createServer().listen(${JSON.stringify(stale)}, () => process.kill(process.pid, 'SIGKILL'))`
  spawnSync(process.execPath, ['-e', script])
  t.ok(statSync(stale).isSocket(), 'a dead server left its file')
  await second.listenUnix(stale)
  t.same(await honest(stale), HONEST)
  await second.close()
  await listener.close()
  t.throws(() => statSync(path), 'close removes the file')
  await t.rejects(listener.listenUnix(path), /closed/)
})

t.test('TCP on loopback', async (t) => {
  const { listener, taken } = await rig(t)
  await listener.listenTcp(undefined, 0)
  const [port] = listener.ports()
  t.ok(port)
  t.same(await honest(port ?? 0), HONEST)
  const peer = dial(port ?? 0)
  peer.socket.write(haggle(option(OPT.go, goData('rdsk/d0'))))
  t.ok(await until(() => taken.length === 1))
  t.equal(taken[0]?.handover.terms.minBlockBytes, 512)
  const blocker = createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => blocker.once('listening', resolve))
  const address = blocker.address()
  await t.rejects(listener.listenTcp('127.0.0.1', typeof address === 'object' ? address?.port : 0), /EADDRINUSE/)
  blocker.close()
  peer.socket.destroy()
})

t.test('gate: nobody is served before it opens', async (t) => {
  let lookups = 0
  const exports = { ...sampleTable, lookup: () => (lookups++, exportInfo()) }
  const { listener, path, taken } = await rig(t, { gate: 'shut', exports })
  const peer = dial(path)
  peer.socket.write(haggle(option(OPT.go, goData('d0'))))
  await sleep(50)
  t.equal(peer.got().length, 0, 'not even a greeting')
  t.equal(lookups, 0)
  listener.openGate()
  t.ok(await until(() => taken.length === 1), 'who waited is served')
  peer.socket.destroy()
})

t.test('bad clients go, others stay', async (t) => {
  const { path, taken } = await rig(t, { limits: { handshakeMillis: 1500 } })
  const before = descriptors()
  const bad: Peer[] = []
  const send = (...bytes: Buffer[]): void => {
    const peer = dial(path)
    bad.push(peer)
    for (const b of bytes) peer.socket.write(b)
  }
  send(Buffer.from('GET / HTTP/1.1\r\n\r\n'))
  send(clientFlags(0xffffffff))
  send(haggle(Buffer.alloc(100_000, 0xaa)))
  send(haggle(option(OPT.list).subarray(0, 9)))
  send(clientFlags(MODERN).subarray(0, 3))
  send()
  const oversized = option(OPT.go)
  oversized.writeUInt32BE(0xfffffff0, 12)
  send(haggle(oversized))
  send(haggle(...Array.from({ length: 400 }, () => option(OPT.list))))
  send(haggle(option(OPT.exportName, Buffer.from('no such'))))
  const gone = dial(path)
  gone.socket.write(haggle(option(OPT.list)).subarray(0, 20), () => gone.socket.destroy())
  // One byte at a time never reaches the deadline by being idle; the deadline counts from accept.
  const slow = dial(path)
  bad.push(slow)
  const drip = setInterval(() => slow.socket.write('\0'), 20)
  const neighbour = dial(path)
  neighbour.socket.write(haggle(option(OPT.go, goData('d1'))))
  t.ok(await until(() => taken.length === 1))
  t.same(await honest(path), HONEST)
  await Promise.all(bad.map((p) => p.closed))
  clearInterval(drip)
  t.equal(taken.length, 1, 'no bad client got through')
  t.equal(taken[0]?.socket.destroyed, false)
  t.same(await honest(path), HONEST)
  neighbour.socket.destroy()
  for (const { socket } of taken) socket.destroy()
  t.ok(await until(() => descriptors() <= before), 'no descriptor left behind')
})

t.test('a client that asks but does not read is bounded', async (t) => {
  const many = Array.from({ length: 4000 }, (_, i) => exportInfo({ name: `d${i}`, description: 'x'.repeat(100) }))
  let lists = 0
  const exports = { ...sampleTable, list: () => (lists++, many) }
  const { path } = await rig(t, { exports, limits: { handshakeMillis: 700 } })
  const peer = connect(path)
  peer.on('error', () => {})
  peer.pause()
  const closed = new Promise((resolve) => peer.on('close', resolve))
  peer.write(haggle(...Array.from({ length: 200 }, () => option(OPT.list))))
  await sleep(300)
  t.ok(lists <= 3, `${lists} lists were made for a client that read none`)
  peer.resume()
  await closed
})

t.test('a client that does read gets every reply', async (t) => {
  const many = Array.from({ length: 1000 }, (_, i) => exportInfo({ name: `d${i}` }))
  const { path } = await rig(t, { exports: { ...sampleTable, list: () => many } })
  const peer = dial(path)
  peer.socket.write(haggle(...Array.from({ length: 50 }, () => option(OPT.list)), option(OPT.abort)))
  await peer.closed
  t.equal(parseReplies(peer.got().subarray(GREETING.length)).length, 50 * 1001 + 1)
})

t.test('thousands of idlers', async (t) => {
  const { path, listener, logs } = await rig(t, { limits: { maxHandshakes: 500 } })
  const before = descriptors()
  const heap = process.memoryUsage().rss
  const idlers: Peer[] = []
  for (let i = 0; i < 2000; i++) {
    idlers.push(dial(path))
    // A full backlog refuses a unix client with EAGAIN; the flood keeps just below that.
    if (i % 200 === 199) await until(() => listener.counts().accepted === i + 1)
  }
  t.ok(await until(() => listener.counts().accepted === 2000), `${listener.counts().accepted} accepted`)
  t.ok(listener.counts().handshakes <= 500, 'held to the limit')
  t.equal(listener.counts().refused, 1500, 'oldest first')
  t.same(await honest(path), HONEST, 'an honest client is served among them')
  t.ok(process.memoryUsage().rss - heap < 150e6, 'memory is bounded (both ends are in this process)')
  t.ok(logs.filter((l) => l.startsWith('warn')).length < 20, 'a flood is not a flood of lines')
  for (const p of idlers) p.socket.destroy()
  const left = (): number => descriptors() - before + listener.counts().handshakes
  t.ok(await until(() => left() <= 0), `${left()} left behind`)
})

const told = (peer: Peer): number[] => parseReplies(peer.got().subarray(GREETING.length)).map((r) => r.type)

t.test('limit on clients in transmission: told so, and served on the same connection later', async (t) => {
  const { path, taken, listener } = await rig(t, { limits: { maxConnections: 1 } })
  const go = option(OPT.go, goData('d0'))
  const first = dial(path)
  first.socket.write(haggle(go))
  t.ok(await until(() => taken.length === 1))
  const second = dial(path)
  second.socket.write(haggle(option(OPT.info, goData('d0')), option(OPT.go, goData('no such')), go))
  t.ok(await until(() => told(second).includes(REP.errPolicy)))
  t.same(told(second), [REP.info, REP.info, REP.ack, REP.errUnknown, REP.errPolicy], 'asking is free')
  t.equal(listener.counts().refused, 1, 'only the GO')
  const old = dial(path)
  old.socket.write(haggle(option(OPT.exportName, Buffer.from('d0'))))
  await old.closed
  t.same(told(old), [], 'EXPORT_NAME has no other way to say it')
  t.same(await honest(path), HONEST)
  t.equal(taken[0]?.socket.destroyed, false)
  taken[0]?.socket.destroy()
  second.socket.write(go)
  t.ok(await until(() => taken.length === 2), 'the place came back')
})

t.test('clients that are just being told that they are served count', async (t) => {
  // The daemon counts from the handover on; before, a reply is on its way to each of these.
  const { path, taken } = await rig(t, { limits: { maxConnections: 5 } })
  const peers = Array.from({ length: 60 }, () => dial(path))
  for (const p of peers) p.socket.write(haggle(option(OPT.go, goData('d0'))))
  t.ok(await until(() => peers.every((p) => told(p).length > 0)))
  t.equal(peers.filter((p) => told(p).includes(REP.ack)).length, 5)
  t.equal(peers.filter((p) => told(p).includes(REP.errPolicy)).length, 55)
  t.ok(await until(() => taken.length === 5))
  for (const p of peers) p.socket.destroy()
})

t.test('closing: clients in a handshake hear it, whoever says nothing is dropped', async (t) => {
  const { path, listener } = await rig(t, { limits: { goodbyeMillis: 60_000 } })
  const asking = dial(path)
  const leaving = dial(path)
  asking.socket.write(haggle())
  leaving.socket.write(haggle())
  t.ok(await until(() => listener.counts().handshakes === 2))
  const closed = listener.close()
  asking.socket.write(Buffer.concat([option(OPT.list), option(OPT.go, goData('d0')), option(77), option(OPT.abort)]))
  leaving.socket.write(option(OPT.exportName, Buffer.from('d0')))
  await Promise.all([asking.closed, leaving.closed])
  t.same(told(asking), [REP.errShutdown, REP.errShutdown, REP.errShutdown, REP.ack])
  t.same(told(leaving), [])
  await closed

  const short = await rig(t, { limits: { goodbyeMillis: 20 } })
  const silent = dial(short.path)
  t.ok(await until(() => silent.got().length > 0))
  await short.listener.close()
  await silent.closed
})

t.test('a failing handover harms only its client', async (t) => {
  const { path, logs } = await rig(t, {
    handover: () => {
      throw new Error('no engine')
    },
  })
  const peer = dial(path)
  peer.socket.write(haggle(option(OPT.go, goData('d0'))))
  await peer.closed
  t.match(logs, /error nbd handover failed/)
  t.same(await honest(path), HONEST)
})

t.test('STARTTLS hook takes the socket over', async (t) => {
  const upgraded: Socket[] = []
  const { path, listener } = await rig(t, { startTls: (s) => upgraded.push(s) })
  const peer = dial(path)
  peer.socket.write(haggle(option(OPT.startTls)))
  t.ok(await until(() => upgraded.length === 1))
  t.equal(listener.counts().handshakes, 0)
  for (const s of upgraded) s.destroy()
  await peer.closed
})

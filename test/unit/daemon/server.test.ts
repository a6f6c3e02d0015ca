/** The control socket with a handler of the test's own: order, bounds, hanging up. Real peers are in test/fault/input. */
import { connect, type Socket } from 'node:net'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { until } from '../../../bench/lib/process.js'
import type { Handler } from '../../../src/daemon/connection.js'
import { ControlServer } from '../../../src/daemon/server.js'

interface Peer {
  readonly socket: Socket
  lines(): { reply: string; status?: number; error?: { args?: string[] } }[]
  readonly closed: Promise<void>
}

const rig = async (t: Test, handler: Handler) => {
  // A socket's path is short: 107 bytes.
  const dir = mkdtempSync(join(tmpdir(), 'admin-'))
  const path = join(dir, 's')
  const server = new ControlServer(handler, pino({ level: 'silent' }))
  await server.listen(path)
  const peers: Peer[] = []
  t.teardown(async () => {
    for (const p of peers) p.socket.destroy()
    await server.close()
    rmSync(dir, { recursive: true, force: true })
  })
  const dial = async (): Promise<Peer> => {
    const socket = connect({ path, allowHalfOpen: true })
    let text = ''
    socket.on('data', (b: Buffer) => (text += b.toString()))
    socket.on('error', () => {})
    // Never closes by itself: a peer that was turned away must not keep anything of metad's.
    const closed = new Promise<void>((resolve) => socket.on('end', resolve).on('close', resolve))
    await new Promise((resolve) => socket.once('connect', resolve))
    const peer: Peer = {
      socket,
      closed,
      lines: () =>
        text
          .split('\n')
          .slice(0, -1)
          .map((l) => JSON.parse(l) as ReturnType<Peer['lines']>[number]),
    }
    peers.push(peer)
    return peer
  }
  return { server, dial }
}

const ask = (op: string, name = 'd0'): string =>
  `${JSON.stringify(op === 'stat' ? { op, probe: false, names: [name] } : { op })}\n`

/** A handler whose requests end when told to. */
const gated = () => {
  const waiting: ((status: number) => void)[] = []
  const seen: string[] = []
  const handler: Handler = (request) => {
    seen.push(request.op === 'stat' ? (request.names[0] ?? '') : request.op)
    return new Promise((resolve) => waiting.push(resolve))
  }
  return { handler, waiting, seen }
}

t.test('requests in one piece, cut anywhere, are carried out one after the other and answered in order', async (t) => {
  const { handler, waiting, seen } = gated()
  const { dial } = await rig(t, handler)
  const peer = await dial()
  const text = ask('stat', 'a') + ask('stat', 'b') + ask('nonsense') + ask('stat', 'c')
  for (const byte of text.slice(0, 50)) peer.socket.write(byte)
  peer.socket.write(text.slice(50))
  await until('first', () => seen.length === 1)
  await sleep(50)
  t.same(seen, ['a'], 'the second waits')
  waiting[0]?.(0)
  await until('second', () => seen.length === 2 && peer.lines().length > 0)
  t.same(
    peer.lines().map((l) => l.status),
    [0],
  )
  waiting[1]?.(7)
  await until('third', () => seen.length === 3 && peer.lines().length > 3)
  t.match(peer.lines(), [{ status: 0 }, { status: 7 }, { error: { args: [/unknown request/] } }, { status: 1 }])
  waiting[2]?.(0)
  await until('all', () => peer.lines().length === 5)
})

t.test('while one works, nothing more is read from its peer', async (t) => {
  const { handler, waiting, seen } = gated()
  const { dial } = await rig(t, handler)
  const peer = await dial()
  peer.socket.write(ask('ping'))
  await until('works', () => seen.length === 1)
  let taken = 0
  for (let i = 0; i < 64; i++) peer.socket.write(Buffer.alloc(1 << 20, ' '), () => taken++)
  await sleep(200)
  t.ok(taken < 8, `${taken} of 64 MiB left the peer`)
  waiting[0]?.(0)
  await until('answered', () => peer.lines().length === 1)
})

t.test('who does not read its answers gets no more of them', async (t) => {
  let answered = 0
  const line = 'x'.repeat(100_000)
  const { dial } = await rig(t, async (_request, send) => {
    answered++
    for (let i = 0; i < 20; i++) send({ reply: 'warning', lines: [line] })
    return 0
  })
  const peer = await dial()
  peer.socket.pause()
  peer.socket.write(ask('ping').repeat(12))
  await sleep(300)
  t.ok(answered < 4, `${answered} answers for a peer that read none`)
  peer.socket.resume()
  await until('in the end all of them', () => peer.lines().filter((l) => l.reply === 'done').length === 12)
})

t.test('what is no line ends the connection, and nothing behind it is carried out', async (t) => {
  const seen: string[] = []
  const { dial } = await rig(t, async (r) => {
    seen.push(r.op)
    return 0
  })
  for (const bad of ['[1]\n', 'nonsense\n', '\xff\n', `${'x'.repeat((1 << 20) + 1)}\n`]) {
    const peer = await dial()
    peer.socket.write(Buffer.from(bad, 'latin1'))
    peer.socket.write(ask('ping'))
    await peer.closed
    t.match(peer.lines(), [
      { reply: 'error', error: { code: 'protocol' } },
      { reply: 'done', status: 1 },
    ])
  }
  t.same(seen, [])
})

t.test('idlers make room, workers do not; who is turned away keeps nothing', async (t) => {
  const { handler, waiting, seen } = gated()
  const { server, dial } = await rig(t, handler)
  const before = readdirSync('/proc/self/fd').length
  const first: Peer[] = []
  for (let i = 0; i < 256; i++) first.push(await dial())
  const late = await dial()
  await first[0]?.closed
  late.socket.write(ask('ping'))
  await until('the newest is served', () => seen.length === 1)
  first[0]?.socket.destroy()
  // All work: nobody can be pushed out.
  for (const p of first.slice(1)) p.socket.write(ask('ping'))
  await until(`${seen.length} work`, () => seen.length === 256)
  const refused: Peer[] = []
  for (let i = 0; i < 50; i++) refused.push(await dial())
  await Promise.all(refused.map((p) => p.closed))
  for (const p of refused) t.match(p.lines(), [{ error: { args: ['too many connections'] } }, { status: 1 }])
  for (const w of waiting) w(0)
  await until('every worker is answered', () => first.slice(1).every((p) => p.lines().length === 1))
  await server.close()
  t.pass('nobody who was turned away holds up the end')
  for (const p of [...first, ...refused, late]) p.socket.destroy()
  await until('no descriptor left', () => readdirSync('/proc/self/fd').length < before + 5)
})

t.test('closing: what runs is answered, the rest is hung up on', async (t) => {
  const { handler, waiting, seen } = gated()
  const { server, dial } = await rig(t, handler)
  const [busy, idle] = [await dial(), await dial()]
  busy.socket.write(ask('stat', 'a') + ask('stat', 'b'))
  await until('works', () => seen.length === 1)
  const closed = server.close()
  await idle.closed
  waiting[0]?.(3)
  await busy.closed
  await closed
  t.same(busy.lines(), [{ reply: 'done', status: 3 }])
  t.same(seen, ['a'], 'the request behind it was not begun')
})

/**
 * What no foreign client says: extended headers, requests sent ahead of the handshake's answer,
 * garbage and oversized requests, peers that do not read. Who misbehaves goes; nobody else notices.
 */
import { createHash, randomBytes } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { CMD, CMD_FLAG, FLAG } from '../../src/nbd/constants.js'
import { until } from '../../bench/lib/process.js'
import { startMetad } from '../tools/daemon.js'
import { everyKind, sizeOf } from '../tools/foreign.js'
import { NbdClient, type ConnectOptions } from '../tools/nbdclient.js'

const metad = await startMetad(t)
const kinds = await everyKind(metad, 16)
const [EINVAL_, ENOSPC_] = [22, 28]

const open = (options: ConnectOptions): Promise<NbdClient> => NbdClient.open(metad.socket, options)
const descriptors = (): number => readdirSync(`/proc/${metad.pid() ?? 0}/fd`).length

t.test('simple, structured and extended replies carry the same data', async (t) => {
  for (const { name, kind } of kinds) {
    const data = randomBytes(300_001)
    for (const [style, terms] of [
      ['simple, EXPORT_NAME', { oldGo: true }],
      ['simple', {}],
      ['structured', { structured: true }],
      ['extended', { extended: true }],
    ] as const) {
      const client = await open({ name, ...terms })
      t.equal(client.size, BigInt(sizeOf(metad, name)))
      t.equal((client.flags & FLAG.sendDf) !== 0, 'structured' in terms || 'extended' in terms)
      t.equal((await client.write(4097n, data, CMD_FLAG.fua)).error, 0)
      t.ok((await client.read(4097n, data.length)).data.equals(data), `${kind}, ${style}`)
      t.equal((await client.flush()).error, 0)
      t.equal((await client.zero(5000n, 3000)).error, 0)
      const read = await client.read(4999n, 3002)
      t.ok(read.data.subarray(1, 3001).every((b) => b === 0))
      t.equal(read.data[0], data[4999 - 4097])
      t.equal((await client.read(client.size, 1)).error, EINVAL_)
      t.equal((await client.write(client.size - 1n, Buffer.alloc(2))).error, ENOSPC_)
      t.equal((await client.request({ command: 77, length: 512 })).error, EINVAL_)
      t.equal((await client.blockStatus(0n, 4096)).error, EINVAL_, 'no context was negotiated')
      await client.disconnect()
    }
  }
})

t.test('block status with extended headers', async (t) => {
  const client = await open({ name: 'd0', extended: true, contexts: ['base:allocation', 'metadisk:state'] })
  const { error, extents } = await client.blockStatus(512n, Number(client.size) - 512)
  t.equal(error, 0)
  t.same([...new Set(extents.map((e) => e.context))].sort(), [...client.contexts.values()].sort())
  for (const e of extents) t.ok(e.length > 0n && e.flags === 0n)
  await client.disconnect()
})

t.test('requests sent ahead of the answer to GO are not lost', async (t) => {
  for (const oldGo of [false, true])
    for (const bytes of [1, 4096, 200_000]) {
      const probe = await open({ name: 'd3' })
      const payload = randomBytes(bytes)
      const client = await open({ name: 'd3', oldGo, early: { command: CMD.write, offset: 777n, payload } })
      t.equal((await client.early)?.error, 0)
      t.ok((await probe.read(777n, bytes)).data.equals(payload), `${bytes} bytes, ${oldGo ? 'EXPORT_NAME' : 'GO'}`)
      await client.disconnect()
      await probe.disconnect()
    }
})

t.test('oversized, unaligned, unknown', async (t) => {
  const client = await open({ name: 'd3', structured: true })
  const max = 32 << 20
  t.equal((await client.read(0n, max + 512)).error, EINVAL_)
  t.equal((await client.request({ command: CMD.write, payload: Buffer.alloc(max + 512) })).error, EINVAL_)
  t.equal((await client.request({ command: CMD.flush, offset: 512n, length: 512 })).error, EINVAL_)
  t.equal((await client.read(0n, 512, 0x8000)).error, EINVAL_)
  t.equal((await client.read(0xffffffffffffff00n, 4096)).error, EINVAL_, 'the sum overflows')
  t.equal((await client.read(0n, 512)).error, 0, 'still there')
  await client.disconnect()
})

t.test('pipelined load on several connections', async (t) => {
  const clients = await Promise.all([0, 1, 2, 3].map((i) => open({ name: 'd3', structured: i % 2 === 0 })))
  const blocks = Array.from({ length: 800 }, () => randomBytes(4096))
  const errors = await Promise.all(
    blocks.map(async (b, i) => (await clients[i % 4]?.write(BigInt(i * 4096), b))?.error ?? -1),
  )
  t.ok(errors.every((e) => e === 0))
  t.equal((await clients[0]?.flush())?.error, 0)
  const back = await Promise.all(
    blocks.map(async (_b, i) => (await clients[(i + 1) % 4]?.read(BigInt(i * 4096), 4096))?.data),
  )
  t.ok(back.every((b, i) => b?.equals(blocks[i] ?? Buffer.alloc(0))))
  await Promise.all(clients.map((c) => c.disconnect()))
})

t.test('garbage ends only its own connection', async (t) => {
  const neighbour = await open({ name: 'd0', structured: true })
  const data = randomBytes(65536)
  await neighbour.write(0n, data)
  const before = descriptors()
  for (let round = 0; round < 40; round++) {
    const bad = await open({ name: kinds[round % kinds.length]?.name ?? 'd0', extended: round % 3 === 0 })
    const junk = randomBytes(round * 50 + 4)
    junk[0] = 0
    bad.socket.write(junk)
    if (round % 2 === 0 && junk.length < 28) bad.socket.end()
    if (junk.length < 32) bad.destroy()
    await bad.closed
  }
  // Truncated: a header that promises more than ever comes; then a reader that vanishes.
  for (let round = 0; round < 20; round++) {
    const bad = await open({ name: 'd3' })
    bad.socket.write(bad.encode({ command: CMD.write, length: 1 << 20 }, 1n))
    bad.socket.write(Buffer.alloc(round * 1000))
    for (let i = 0; i < 20; i++) bad.read(0n, 1 << 20).catch(() => {})
    await sleep(round % 3)
    bad.destroy()
  }
  const { data: same } = await neighbour.read(0n, 65536)
  t.equal(createHash('sha256').update(same).digest('hex'), createHash('sha256').update(data).digest('hex'))
  await neighbour.disconnect()
  await until('no descriptor is left behind', () => descriptors() < before)
})

t.test('clients that do not read hold up nobody', async (t) => {
  const mute = await Promise.all(Array.from({ length: 20 }, () => open({ name: 'd3' })))
  for (const m of mute) {
    m.socket.pause()
    for (let i = 0; i < 300; i++) m.read(0n, 1 << 20).catch(() => {})
  }
  await sleep(300)
  const honest = await open({ name: 'd3' })
  const began = Date.now()
  for (let i = 0; i < 100; i++) {
    const block = randomBytes(4096)
    await honest.write(BigInt(i) * 4096n, block)
    if (!(await honest.read(BigInt(i) * 4096n, 4096)).data.equals(block)) t.fail('wrong data')
  }
  t.ok(Date.now() - began < 60_000, `${Date.now() - began} ms for 200 requests`)
  for (const m of mute) m.destroy()
  await honest.disconnect()
})

t.test('a metadevice in use is not cleared, and may be afterwards', async (t) => {
  const client = await open({ name: 'd5' })
  const refused = metad.run('metaclear', ['d5'])
  t.not(refused.status, 0)
  t.match(refused.stderr, /in use|open/i)
  t.equal((await client.read(0n, 512)).error, 0)
  await client.disconnect()
  // The engine tells a moment later that the client is gone.
  await until('cleared', () => metad.run('metaclear', ['d5']).status === 0)
  await t.rejects(open({ name: 'd5' }), /error 6/)
})

t.test('metad is unharmed', (t) => {
  t.not(metad.pid(), undefined)
  t.notMatch(metad.log(), /"level":(50|60)/, 'no error was logged')
  t.end()
})

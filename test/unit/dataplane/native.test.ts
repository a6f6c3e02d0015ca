/** The native boundary as the control plane uses it. */
import { execFile } from 'node:child_process'
import { closeSync, openSync, truncateSync, writeFileSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { constants } from 'node:os'
import { promisify } from 'node:util'
import t from 'tap'
import { blocks } from '../../../src/base/units.js'
import { COUNTERS, namedCounters } from '../../../src/dataplane/counters.js'
import { fdOf, selfTest } from '../../../src/dataplane/handover.js'
import { blockDeviceInfo, lockFile, loadDataPlane, peerUid, sdNotify } from '../../../src/dataplane/native.js'
import type { NativeEvent } from '../../../src/plan/events.js'
import type { ComponentId } from '../../../src/plan/types.js'
import { BLOCKS, readAt, receive, request, Rig, TERMS } from './rig.js'

const WRITE = 1
const READ = 0

t.test('a client writes through the engine; the counters say so', async (t) => {
  const rig = new Rig()
  await rig.start()
  t.teardown(() => rig.close())
  const file = rig.file(5)
  await rig.install(0, [file])
  const data = Buffer.alloc(4096, 0xa5)
  const first = Buffer.concat([request(WRITE, 8192, 4096, 77), data])
  // The handshake had read the header and a part of the payload.
  const { socket } = await rig.connect(0, first.subarray(0, 1000))
  socket.write(first.subarray(1000))
  const reply = await receive(socket, 16)
  t.equal(reply.readUInt32BE(0), 0x67446698)
  t.equal(reply.readUInt32BE(4), 0)
  t.equal(reply.readBigUInt64BE(8), 77n)
  t.same(readAt(file, 8192, 4096), data)
  socket.write(request(READ, 8192, 4096, 78))
  t.same((await receive(socket, 16 + 4096)).subarray(16), data)
  await rig.engine.flush(0)
  const raw = rig.engine.counters(0)
  t.equal(raw.length, COUNTERS.length)
  t.match(namedCounters(raw), { reads: 1n, readBytes: 4096n, writes: 1n, writeBytes: 4096n, connections: 1n })
  t.same(rig.engine.counters(99), new BigUint64Array(COUNTERS.length))
})

t.test('refusals are rejections with a reason', async (t) => {
  const rig = new Rig()
  await rig.start(1)
  t.teardown(() => rig.close())
  const file = rig.file(5)
  await t.rejects(rig.engine.install(0, new Uint8Array(3), [], null), { message: 'too short' })
  await t.rejects(rig.engine.flush(0))
  t.throws(() => rig.engine.adopt(0, 0, TERMS, new Uint8Array(0)), { message: 'no such device' })
  await rig.install(0, [file])
  t.throws(() => rig.engine.adopt(file.component.fd, 0, TERMS, new Uint8Array(0)), { message: 'not a socket' })
  t.throws(() =>
    rig.engine.start(
      {
        threads: 1,
        queueDepth: 1,
        maxRequestBytes: 65536,
        spinMicros: 0,
        regionSweepMillis: 10_000,
        raid5CacheBytes: 8 << 20,
      },
      () => {},
    ),
  )
  t.throws(() => loadDataPlane().adopt(0, 0, TERMS, new Uint8Array(0)), { message: 'the engine is not started' })
})

t.test('disconnect and remove close connections and say so', async (t) => {
  const rig = new Rig()
  await rig.start()
  t.teardown(() => rig.close())
  await rig.install(4, [rig.file(5)])
  const a = await rig.connect(4)
  rig.engine.disconnect(a.id, 'now')
  t.equal((await receive(a.socket, 1)).length, 0)
  const closed = await rig.event((e) => e.kind === 'connectionClosed' && e.connection === a.id)
  t.match(closed, { device: 4, reason: 'disconnected' })
  const b = await rig.connect(4)
  b.socket.write(request(READ, 0, 512, 1))
  t.equal((await receive(b.socket, 528)).length, 528)
  await rig.engine.remove(4)
  t.equal((await receive(b.socket, 1)).length, 0)
  t.match(await rig.event((e) => e.kind === 'connectionClosed' && e.connection === b.id), { device: 4 })
  await rig.engine.remove(4)
})

t.test('a lost end of a file is an event with its component and block', async (t) => {
  const rig = new Rig()
  await rig.start()
  t.teardown(() => rig.close())
  const file = rig.file(7)
  await rig.install(2, [file], false, 31)
  const { socket } = await rig.connect(2)
  truncateSync(file.path, 4096)
  socket.write(request(READ, 65536, 4096, 1))
  t.equal((await receive(socket, 16)).readUInt32BE(4), 5)
  t.match(await rig.event((e) => e.kind === 'componentError'), {
    device: 2,
    generation: 31,
    component: 7,
    op: 'read',
    block: 128,
    errno: 5,
    masked: false,
    repairFailed: false,
  })
})

const COPY = {
  target: 1,
  kind: 'full',
  component: null,
  from: blocks(0),
  bufferBlocks: 64,
  bytesPerSecond: 0,
  checkpointMillis: 0,
} as const

t.test('a job for a device that is not there ends; unknown holds and tickets are ignored', async (t) => {
  const rig = new Rig()
  await rig.start()
  t.teardown(() => rig.close())
  await rig.install(6, [rig.file(1), rig.file(2)], true)
  const ended = (job: number) => rig.event((e) => e.kind === 'resyncEnded' && e.job === job)
  rig.engine.verify(7, { job: 4, from: blocks(0), repair: false, bufferBlocks: 64, bytesPerSecond: 0 })
  t.match(await ended(4), { outcome: 'failed', errno: constants.errno.ENODEV })
  // Unknown holds and tickets are ignored; unknown words are not.
  rig.engine.settle(6, 1, 'resume')
  rig.engine.marked(6, 1, true)
  t.equal(rig.engine.busy(1 as ComponentId), false)
  t.throws(() => rig.engine.settle(6, 1, 'perhaps' as 'fail'), { message: 'settle: unknown verdict' })
  t.throws(() => rig.engine.resync(6, { ...COPY, job: 5, kind: 'some' as 'full' }), { message: 'resync: unknown kind' })
})

t.test('a component is resynced with checkpoints, sides are compared and made equal', async (t) => {
  const rig = new Rig()
  await rig.start()
  t.teardown(() => rig.close())
  const [one, two] = [rig.file(1), rig.file(2)]
  writeFileSync(one.path, Buffer.alloc(BLOCKS * 512, 0x3c))
  await rig.install(6, [one, two], true)
  const ended = (job: number) => rig.event((e) => e.kind === 'resyncEnded' && e.job === job)
  const VERIFY = { from: blocks(0), repair: false, bufferBlocks: 16, bytesPerSecond: 0 }
  const whole = { device: 6, block: 0, blocks: BLOCKS }
  rig.engine.verify(6, { ...VERIFY, job: 1 })
  t.match(await ended(1), { outcome: 'done', done: BLOCKS, mismatches: BLOCKS })
  t.match(await rig.event((e) => e.kind === 'verifyMismatch' && e.job === 1), whole)
  const copy = {
    ...COPY,
    kind: 'component',
    component: 2 as ComponentId,
    bufferBlocks: 1,
    checkpointMillis: 1,
  } as const
  rig.engine.resync(6, { ...copy, job: 2, bytesPerSecond: BLOCKS * 512 * 20 })
  const checkpoint = await rig.event((e) => e.kind === 'resyncCheckpoint')
  t.match(checkpoint, { device: 6, job: 2 })
  t.match(await ended(2), { outcome: 'done', done: BLOCKS })
  writeFileSync(two.path, Buffer.alloc(5 * 512), { flag: 'r+' })
  rig.engine.verify(6, { ...VERIFY, job: 3, repair: true })
  t.match(await ended(3), { outcome: 'done', mismatches: 5 })
  rig.engine.verify(6, { ...VERIFY, job: 4 })
  t.match(await ended(4), { outcome: 'done', mismatches: 0 })
  t.same(readAt(two, 0, BLOCKS * 512), readAt(one, 0, BLOCKS * 512))
})

const LOG = { regionBlocks: blocks(2048) }
const isDirty = (e: NativeEvent): e is NativeEvent & { kind: 'regionsDirty' } => e.kind === 'regionsDirty'
const isIdle = (e: NativeEvent): e is NativeEvent & { kind: 'regionsIdle' } => e.kind === 'regionsIdle'

t.test('a first write into a region waits for its mark; after the last client the region is clean', async (t) => {
  const rig = new Rig()
  await rig.start()
  t.teardown(() => rig.close())
  const [one, two] = [rig.file(1), rig.file(2)]
  await rig.install(6, [one, two], true, 1, LOG)
  const { socket } = await rig.connect(6)
  const write = (offset: number, cookie: number): boolean =>
    socket.write(Buffer.concat([request(WRITE, offset, 4096, cookie), Buffer.alloc(4096, 0x77)]))
  const at = 2 * 2048 * 512
  write(at, 1)
  const dirty = await rig.event(isDirty)
  t.match(dirty, { device: 6, regions: [2], regionBlocks: 2048 })
  t.same(readAt(one, at, 4096), Buffer.alloc(4096), 'nothing is written before the mark')
  t.same(readAt(two, at, 4096), Buffer.alloc(4096))
  rig.engine.marked(6, isDirty(dirty) ? dirty.ticket : 0, true)
  t.equal((await receive(socket, 16)).readUInt32BE(4), 0)
  write(at + 8192, 2)
  t.equal((await receive(socket, 16)).readUInt32BE(4), 0, 'the region is dirty: no more waiting')
  t.equal(rig.events.filter(isDirty).length, 1)
  // A refused mark is an error for the write that waits for it.
  write(0, 3)
  const second = await rig.event((e) => isDirty(e) && e !== dirty)
  rig.engine.marked(6, isDirty(second) ? second.ticket : 0, false)
  t.equal((await receive(socket, 16)).readUInt32BE(4), 5)
  t.same(readAt(one, 0, 4096), Buffer.alloc(4096))
  socket.destroy()
  const idle = await rig.event(isIdle)
  t.match(idle, { device: 6, regions: [0, 2], regionBlocks: 2048 })
  rig.engine.marked(6, isIdle(idle) ? idle.ticket : 0, true)
  const again = await rig.connect(6)
  again.socket.write(Buffer.concat([request(WRITE, at, 4096, 1), Buffer.alloc(4096, 0x55)]))
  await rig.event((e) => isDirty(e) && e !== dirty && e !== second)
  // Removed with the ticket out: nobody answers it, the client is told, nothing hangs.
  await rig.engine.remove(6)
  t.same(readAt(one, at, 4096), Buffer.alloc(4096, 0x77))
})

t.test('after a crash a stale side is copied where the database is dirty, and nowhere else', async (t) => {
  const rig = new Rig()
  await rig.start()
  t.teardown(() => rig.close())
  const [one, two] = [rig.file(1), rig.file(2)]
  writeFileSync(one.path, Buffer.alloc(BLOCKS * 512, 0x11))
  writeFileSync(two.path, Buffer.alloc(BLOCKS * 512, 0x22))
  await rig.install(6, [one, two], true, 1, { ...LOG, dirty: Uint8Array.of(0b0100), stale: 1 })
  rig.engine.resync(6, { ...COPY, job: 1, kind: 'optimized' })
  t.match(await rig.event((e) => e.kind === 'resyncEnded'), { outcome: 'done', done: BLOCKS })
  const [first, length] = [2 * 2048 * 512, 2048 * 512]
  t.same(readAt(two, first, length), Buffer.alloc(length, 0x11))
  t.same(readAt(two, 0, first), Buffer.alloc(first, 0x22))
  t.same(readAt(two, first + length, length), Buffer.alloc(length, 0x22))
  t.equal(rig.events.filter(isIdle).length, 0, 'nothing is called clean while a side is stale')
  await rig.install(6, [one, two], true, 2, LOG)
  const idle = await rig.event(isIdle)
  t.match(idle, { regions: [2] })
})

t.test('a mirror is resynced, with progress and an end', async (t) => {
  const rig = new Rig()
  await rig.start()
  t.teardown(() => rig.close())
  const one = rig.file(1)
  const two = rig.file(2)
  writeFileSync(one.path, Buffer.alloc(BLOCKS * 512, 0x3c))
  await rig.install(6, [one, two], true)
  rig.engine.resync(6, { ...COPY, job: 9 })
  const ended = await rig.event((e) => e.kind === 'resyncEnded')
  t.match(ended, { device: 6, job: 9, outcome: 'done', errno: 0, done: BLOCKS, mismatches: 0 })
  t.same(readAt(two, 0, BLOCKS * 512), readAt(one, 0, BLOCKS * 512))
  rig.engine.resync(6, { ...COPY, job: 10, target: 3 })
  t.match(await rig.event((e) => e.kind === 'resyncEnded' && e.job === 10), { outcome: 'failed', component: null })
  rig.engine.cancelResync(6)
})

t.test('stop is idempotent, ends connections, and the engine can be forgotten without it', async (t) => {
  const rig = new Rig()
  await rig.start()
  await rig.install(0, [rig.file(1)])
  const { socket } = await rig.connect(0)
  const twice = [rig.engine.stop(), rig.engine.stop()]
  await Promise.all(twice)
  await rig.close()
  t.equal((await receive(socket, 1)).length, 0)
  const source = `
    import { loadDataPlane } from ${JSON.stringify(new URL('../../../src/dataplane/native.js', import.meta.url).href)}
    loadDataPlane().start({ threads: 2, queueDepth: 8, maxRequestBytes: 65536, spinMicros: 20, regionSweepMillis: 10000, raid5CacheBytes: 8 << 20 }, () => {})
    console.log('running')`
  const run = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', source])
  t.equal(run.stdout, 'running\n')
})

t.test('an engine that was stopped and collected does not haunt the end of the process', async (t) => {
  const source = `
    import { loadDataPlane } from ${JSON.stringify(new URL('../../../src/dataplane/native.js', import.meta.url).href)}
    const options = { threads: 1, queueDepth: 8, maxRequestBytes: 65536, spinMicros: 0, regionSweepMillis: 10000, raid5CacheBytes: 8 << 20 }
    const kept = []
    for (let i = 0; i < 10; i++) {
      const engine = loadDataPlane()
      engine.start(options, () => {})
      await engine.stop()
    }
    for (let i = 0; i < 5; i++) {
      globalThis.gc()
      await new Promise((resolve) => setImmediate(resolve))
      for (let k = 0; k < 1000; k++) kept.push(new Map([[k, Buffer.alloc(144, 0xff)]]))
    }
    console.log('stopped')`
  const run = await promisify(execFile)(process.execPath, ['--expose-gc', '--input-type=module', '-e', source], {
    env: { ...process.env, MALLOC_PERTURB_: '85' },
  })
  t.equal(run.stdout, 'stopped\n')
})

t.test('sockets: the descriptor, the peer, and the self test', async (t) => {
  t.equal(await selfTest(), true)
  const rig = new Rig()
  await rig.start()
  t.teardown(() => rig.close())
  const path = join(rig.directory, 'other')
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(path, resolve))
  const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve))
  const client = connect(path)
  const socket = await accepted
  t.equal(peerUid(fdOf(socket)), process.getuid?.())
  client.destroy()
  socket.destroy()
  server.close()
  t.throws(() => fdOf(socket))
})

t.test('locks, block devices, systemd', async (t) => {
  const rig = new Rig()
  await rig.start()
  t.teardown(() => rig.close())
  const path = join(rig.directory, 'lock')
  const one = openSync(path, 'w')
  const two = openSync(path, 'w')
  t.equal(lockFile(one), true)
  t.equal(lockFile(two), false)
  closeSync(one)
  t.equal(lockFile(two), true)
  t.throws(() => blockDeviceInfo(two), { message: /BLKGETSIZE64/ })
  closeSync(two)
  t.throws(() => lockFile(two))
  // Nobody listens: setting the variable here would reach a real service manager.
  if (process.env['NOTIFY_SOCKET'] === undefined) t.equal(sdNotify('READY=1'), false)
})

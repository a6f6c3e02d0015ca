/**
 * Hot spares take over under a client that writes: no error reaches it, the spare gets every block, and
 * what metastat says is true. Disks that fail on demand stand behind the components.
 */
import { mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { until } from '../../../bench/lib/process.js'
import { type Metad, startMetad, type Test } from '../../tools/daemon.js'
import { type FaultDisks, missingFaultDisk, startFaultDisks } from '../../tools/faultdisk.js'
import { NbdClient } from '../../tools/nbdclient.js'

// tap's 30 seconds for a whole file are short when the machine is busy.
t.setTimeout(240_000)

const MIB = 1 << 20
const SIZE = 4 * MIB
const PATIENCE_MS = 30_000

interface Rig {
  readonly metad: Metad
  readonly disks: FaultDisks
  readonly client: NbdClient
  /** What must be there. */
  readonly expected: Buffer
  readonly write: (at: number, fill: string) => Promise<number>
}

/** d0 of d1 (disk a) and d2 (disk b), both with hsp001 of `spares`. */
const start = async (t: Test, spares: readonly string[], conf = ''): Promise<Rig> => {
  const dir = mkdtempSync(join(tmpdir(), 'takeover-'))
  t.teardown(() => Promise.resolve(rmSync(dir, { recursive: true, force: true })))
  const disks = await startFaultDisks(t, dir, { a: 4, b: 4, s1: 4, s2: 4, s3: 4 })
  const metad = await startMetad(t, { conf: `component_timeout = 5\n${conf}` })
  metad.must('metadb', ['-a', '-f', ...['r1', 'r2', 'r3'].map((n) => join(metad.root, 'disks', n))])
  metad.must('metainit', ['hsp001', ...spares.map((s) => disks.path(s))])
  metad.must('metainit', ['d1', '1', '1', disks.path('a'), '-h', 'hsp001'])
  metad.must('metainit', ['d2', '1', '1', disks.path('b'), '-h', 'hsp001'])
  metad.must('metainit', ['d0', '-m', 'd1', 'd2'])
  const client = await NbdClient.open(metad.socket, { name: 'd0' })
  t.teardown(() => Promise.resolve(client.destroy()))
  const expected = Buffer.alloc(SIZE)
  const write = async (at: number, fill: string): Promise<number> => {
    const payload = Buffer.alloc(65_536, fill)
    payload.copy(expected, at)
    return (await client.write(BigInt(at), payload)).error
  }
  return { metad, disks, client, expected, write }
}

const concise = (metad: Metad): string => metad.must('metastat', ['-c', 'd0', 'hsp001'])
const becomes = (metad: Metad, what: RegExp): Promise<void> =>
  until(`${String(what)} in metastat`, () => what.test(concise(metad)), PATIENCE_MS)

const skip = missingFaultDisk()

t.test('a component that is away at the first open after a start gets a spare at once', async (t) => {
  const metad = await startMetad(t)
  const disk = (name: string): string => join(metad.root, 'disks', name)
  metad.must('metadb', ['-a', '-f', disk('r1')])
  const [a, b, s] = [metad.disk('a', 4), metad.disk('b', 4), metad.disk('s', 4)]
  metad.must('metainit', ['hsp001', s])
  metad.must('metainit', ['d1', '1', '1', a, '-h', 'hsp001'])
  metad.must('metainit', ['d2', '1', '1', b, '-h', 'hsp001'])
  metad.must('metainit', ['d0', '-m', 'd1', 'd2'])
  await metad.stop()
  renameSync(b, disk('gone'))
  await metad.start()
  t.match(concise(metad), /\/s\n/, 'nothing is recorded before it is used')
  const client = await NbdClient.open(metad.socket, { name: 'd0' })
  t.teardown(() => Promise.resolve(client.destroy()))
  await becomes(metad, /\/b \(spared-\S+\/s\)\n/)
  t.equal((await client.write(0n, Buffer.alloc(4096, 'x'))).error, 0)
  t.equal((await client.flush()).error, 0)
  t.equal(readFileSync(s).subarray(0, 4096).toString(), 'x'.repeat(4096))
})

t.test('a write error: the spare takes over, is filled, and is given back', { skip }, async (t) => {
  const { metad, disks, client, expected, write } = await start(t, ['s1', 's2'])
  for (let at = 0; at < SIZE; at += 65_536) t.equal(await write(at, `block ${at} `), 0)
  disks.tell('b fail write EIO')
  t.equal(await write(65_536, 'after the error '), 0, 'the client sees nothing of it')
  t.match(metad.log(), /WARNING: md: d2: \S+\/b needs maintenance/)
  await becomes(metad, /\/b \(spared-\S+\/s1\)\n/)
  t.match(metad.log(), /NOTICE: md: d2: hotspared device \S+\/b with \S+\/s1/)
  t.match(concise(metad), /hsp001 +h +- \S+\/s1 \(in-use\) \S+\/s2\n/)
  t.match(metad.must('metastat', ['d0']), /d2: Submirror of d0\n {4}State: Okay/)
  t.equal(await write(131_072, 'with the spare '), 0)
  t.equal((await client.flush()).error, 0)
  t.ok(readFileSync(disks.image('s1')).equals(expected), 'the spare has every block')

  const refused = (command: string, ...words: string[]): string => metad.run(command, words).stderr
  t.match(refused('metahs', '-d', 'hsp001', disks.path('s1')), 'hotspare is in use')
  t.match(refused('metahs', '-r', 'hsp001', disks.path('s1'), disks.path('s3')), 'hotspare is in use')
  t.match(refused('metahs', '-e', disks.path('s1')), 'cannot enable hotspared device')
  t.match(refused('metaparam', '-h', 'none', 'd2'), "can't modify hot spare pool, hot spare in use")
  t.match(
    refused('metainit', 'd9', '1', '1', disks.path('b')),
    'has appeared more than once in the specification of d2',
  )
  t.match(metad.must('metastat', ['-p', 'd2']), `d2 1 1 ${disks.path('b')} -h hsp001\n`)

  client.destroy()
  await metad.stop()
  await metad.start()
  await becomes(metad, /\/b \(spared-\S+\/s1\)\n/)

  disks.tell('b ok')
  t.equal(metad.must('metareplace', ['-e', 'd0', disks.path('b')]), `d0: device ${disks.path('b')} is enabled\n`)
  await becomes(metad, /\/b\nhsp001 +h +- \S+\/s1 \S+\/s2\n/)
  t.ok(readFileSync(disks.image('b')).equals(expected), 'the original has every block again')
})

t.test('spares that fail: before use, and while they are filled', { skip }, async (t) => {
  const { metad, disks, client, expected, write } = await start(t, ['s1', 's2', 's3'])
  for (let at = 0; at < SIZE; at += 65_536) t.equal(await write(at, `block ${at} `), 0)
  // s1 cannot be read at its end, s2 cannot be written in the middle: only use finds that out.
  disks.tell(`s1 fail read EIO from=${SIZE - 512}`)
  disks.tell(`s2 fail write EIO from=${2 * MIB} bytes=${MIB}`)
  disks.tell('b fail write EIO')
  t.equal(await write(0, 'after the error '), 0)
  await becomes(metad, /\/b \(spared-\S+\/s3\)\n/)
  t.match(concise(metad), /\/s1 \(broken\) \S+\/s2 \(broken\) \S+\/s3 \(in-use\)\n/)
  t.match(metad.log(), /WARNING: md: d2: open error of hotspare \S+\/s1/)
  t.match(metad.log(), /NOTICE: md: d2: hotspared device \S+\/b with \S+\/s2/)
  t.equal((await client.flush()).error, 0)
  t.ok(readFileSync(disks.image('s3')).equals(expected))

  // The last one fails too: the component is what it was, in Maintenance.
  disks.tell('s3 fail write EIO')
  t.equal(await write(65_536, 'nothing is left '), 0)
  await becomes(metad, /\/b \(maint\)\nhsp001 .*\/s1 \(broken\) \S+\/s2 \(broken\) \S+\/s3 \(broken\)\n/)

  // A spare that comes back is taken at once.
  disks.tell('s2 ok')
  t.equal(metad.must('metahs', ['-e', disks.path('s2')]), `hotspare ${disks.path('s2')} is enabled\n`)
  await becomes(metad, /\/b \(spared-\S+\/s2\)\n/)
  t.equal((await client.flush()).error, 0)
  t.ok(readFileSync(disks.image('s2')).equals(expected))
})

t.test('no pool large enough, then a spare is added', { skip }, async (t) => {
  const { metad, disks, write } = await start(t, [])
  disks.tell('b fail write EIO')
  t.equal(await write(0, 'x'), 0)
  await becomes(metad, /\/b \(maint\)\n/)
  metad.must('metahs', ['-a', 'hsp001', metad.disk('small', 1)])
  metad.must('metahs', ['-a', 'hsp001', disks.path('s1')])
  await becomes(metad, /\/b \(spared-\S+\/s1\)\nhsp001 +h +- \S+\/small \S+\/s1 \(in-use\)\n/)
})

t.test('metad dies while the spare is filled: the copy goes on', { skip }, async (t) => {
  const { metad, disks, client, expected, write } = await start(
    t,
    ['s1'],
    'resync_bytes_per_second = 2097152\nresync_buffer_blocks = 128\n',
  )
  for (let at = 0; at < SIZE; at += 65_536) t.equal(await write(at, `block ${at} `), 0)
  disks.tell('b fail write EIO')
  t.equal(await write(0, 'after the error '), 0)
  t.equal((await client.flush()).error, 0)
  await becomes(metad, /\/b \(resyncing-\S+\/s1\)\n/)
  await metad.kill9()
  await metad.start()
  t.match(concise(metad), /\/s1 \(in-use\)\n/)
  await becomes(metad, /\/b \(spared-\S+\/s1\)\n/)
  t.ok(readFileSync(disks.image('s1')).equals(expected))
})

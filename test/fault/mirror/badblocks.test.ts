/**
 * Bad blocks on one side of a mirror: the client hears nothing of them, the disk is rewritten where that
 * can be done, and comes out of service where it cannot. Disks that fail on demand stand behind the components.
 */
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { until } from '../../../bench/lib/process.js'
import { type Metad, startMetad } from '../../tools/daemon.js'
import { type FaultDisks, missingFaultDisk, startFaultDisks } from '../../tools/faultdisk.js'
import { NbdClient } from '../../tools/nbdclient.js'

// tap's 30 seconds for a whole file are short when the machine is busy.
t.setTimeout(240_000)

const MIB = 1 << 20
const SIZE = 4 * MIB
const PIECE = 65_536
const PATIENCE_MS = 30_000

interface Rig {
  readonly metad: Metad
  readonly disks: FaultDisks
  readonly client: NbdClient
  /** What must be there. */
  readonly expected: Buffer
  /** Reads, and compares with it. */
  readonly read: (at: number, length: number) => Promise<void>
}

/** d0 of d1 (disk a, which is read) and d2 (disk b), full of data that is on both. */
const start = async (t: Test, conf = ''): Promise<Rig> => {
  const dir = mkdtempSync(join(tmpdir(), 'badblocks-'))
  t.teardown(() => Promise.resolve(rmSync(dir, { recursive: true, force: true })))
  const disks = await startFaultDisks(t, dir, { a: 4, b: 4 })
  const metad = await startMetad(t, { conf })
  metad.must('metadb', ['-a', '-f', ...['r1', 'r2', 'r3'].map((n) => join(metad.root, 'disks', n))])
  metad.must('metainit', ['d1', '1', '1', disks.path('a')])
  metad.must('metainit', ['d2', '1', '1', disks.path('b')])
  metad.must('metainit', ['d0', '-m', 'd1', 'd2', '-r'])
  const client = await NbdClient.open(metad.socket, { name: 'd0' })
  t.teardown(() => Promise.resolve(client.destroy()))
  const expected = Buffer.alloc(SIZE)
  for (let at = 0; at < SIZE; at += PIECE) {
    const payload = Buffer.alloc(PIECE, `block ${at} `)
    payload.copy(expected, at)
    t.equal((await client.write(BigInt(at), payload)).error, 0)
  }
  t.equal((await client.flush()).error, 0)
  const read = async (at: number, length: number): Promise<void> => {
    const answer = await client.read(BigInt(at), length)
    t.equal(answer.error, 0, 'no error reaches the client')
    t.ok(answer.data.equals(expected.subarray(at, at + length)), 'nor a wrong byte')
  }
  return { metad, disks, client, expected, read }
}

/** The sector of a disk that went bad no longer holds what was written. */
const scratch = (image: string, at: number, length: number): void => {
  const file = openSync(image, 'r+')
  writeSync(file, Buffer.alloc(length, 0xee), 0, length, at)
  closeSync(file)
}

const skip = missingFaultDisk()

t.test('a bad sector is rewritten from the other side', { skip }, async (t) => {
  const { metad, disks, expected, read } = await start(t)
  const bad = MIB + 3 * 512
  disks.tell(`a fail read EIO from=${bad} bytes=512 until-written`)
  scratch(disks.image('a'), bad, 512)
  await read(MIB, PIECE)
  await until('the log says so', () => metad.log().includes('repaired'), PATIENCE_MS)
  t.match(
    metad.log(),
    /WARNING: md: d1: read error on \S+\/a"[^]*NOTICE: md: d1: read error on \S+\/a repaired: 8 blocks rewritten at block 2048"/,
  )
  t.ok(readFileSync(disks.image('a')).equals(expected), 'the disk holds it again')
  t.equal(disks.counters('a').failed >= 1, true)
  const before = disks.counters('a')
  await read(MIB, PIECE)
  t.equal(disks.counters('a').failed, before.failed, 'it can be read')
  t.equal(disks.counters('a').reads > before.reads, true, 'and is read')
  t.match(metad.must('metastat', ['d0']), /d1: Submirror of d0\n {4}State: Okay/)
  t.notMatch(metad.log(), /needs maintenance/)
})

t.test('many bad sectors under a client that reads everything', { skip }, async (t) => {
  const { metad, disks, expected, read } = await start(t, 'component_read_errors = 1000\n')
  for (let i = 0; i < 40; i++) {
    const bad = (i * 97_777) & ~511
    disks.tell(`a fail read EIO from=${bad} bytes=512 until-written`)
    scratch(disks.image('a'), bad, 512)
  }
  for (let at = 0; at < SIZE; at += PIECE) await read(at, PIECE)
  await until('every sector is good again', () => readFileSync(disks.image('a')).equals(expected), PATIENCE_MS)
  const before = disks.counters('a').failed
  for (let at = 0; at < SIZE; at += PIECE) await read(at, PIECE)
  t.equal(disks.counters('a').failed, before)
  t.match(metad.must('metastat', ['-c', 'd0']), /^d0 +m +\S+ d1 d2\n/)
})

t.test('a sector that cannot be rewritten: maintenance within a second', { skip }, async (t) => {
  const { metad, disks, expected, read, client } = await start(t)
  const bad = 2 * MIB
  disks.tell(`a fail read,write EIO from=${bad} bytes=512`)
  const began = Date.now()
  await read(bad, PIECE)
  await until('needs maintenance', () => metad.log().includes('needs maintenance'), PATIENCE_MS)
  t.comment(`${Date.now() - began} ms`)
  t.match(metad.log(), /WARNING: md: d1: \S+\/a needs maintenance/)
  t.match(
    metad.must('metastat', ['d0']),
    /d1: Submirror of d0\n {4}State: Needs maintenance +\n {4}Invoke: metareplace d0 \S+\/a <new device>\n/,
  )
  t.notMatch(metad.log(), /repaired/)
  await read(0, PIECE)
  await read(bad, PIECE)
  t.equal((await client.write(BigInt(bad), expected.subarray(bad, bad + PIECE))).error, 0)

  disks.tell('a ok')
  metad.must('metareplace', ['-e', 'd0', disks.path('a')])
  await until('in step', () => /State: Okay[^]*State: Okay/.test(metad.must('metastat', ['d0'])), PATIENCE_MS)
  t.equal((await client.flush()).error, 0)
  t.ok(readFileSync(disks.image('a')).equals(expected))
})

t.test('more errors than component_read_errors: maintenance, although each could be rewritten', { skip }, async (t) => {
  const { metad, disks, expected, read } = await start(t, 'component_read_errors = 2\n')
  for (let i = 0; i < 3; i++) {
    disks.tell(`a fail read EIO from=${i * MIB} bytes=512 until-written`)
    scratch(disks.image('a'), i * MIB, 512)
    t.notMatch(metad.log(), /needs maintenance/)
    await read(i * MIB, 4096)
    if (i === 2) break
    await until('repaired', () => readFileSync(disks.image('a')).equals(expected), PATIENCE_MS)
  }
  await until('needs maintenance', () => metad.log().includes('needs maintenance'), PATIENCE_MS)
  await read(0, PIECE)
})

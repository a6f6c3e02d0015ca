/**
 * Components that live on somebody else's storage: FUSE, and a block device whose write-back fails.
 * They may hang and fail as they like; other metadevices go on, and no lost write is acknowledged.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { CMD_FLAG } from '../../../src/nbd/constants.js'
import { startMetad, type Metad, type Test } from '../../tools/daemon.js'
import { faultyDisk, faultyLoop } from '../../tools/faultydisk.js'
import { missing } from '../../tools/foreign.js'
import { missingBlock } from '../../tools/mounts.js'
import { NbdClient } from '../../tools/nbdclient.js'

const EIO = 5
const PAGE = Buffer.alloc(4096, 0x5a)

const directory = (t: Test): string => {
  const made = mkdtempSync(join(tmpdir(), 'storage-'))
  t.teardown(() => Promise.resolve(rmSync(made, { recursive: true, force: true })))
  return made
}

const withReplicas = async (t: Test, conf: string): Promise<Metad> => {
  const metad = await startMetad(t, { conf })
  metad.must('metadb', ['-a', '-f', ...[0, 1, 2].map((i) => join(metad.root, `disks/replica${i}`))])
  return metad
}

const open = async (t: Test, metad: Metad, name: string): Promise<NbdClient> => {
  const client = await NbdClient.open(metad.socket, { name })
  t.teardown(() => Promise.resolve(client.destroy()))
  return client
}

t.setTimeout(240_000)

t.test(
  'a component that hangs holds up nobody else on its I/O thread',
  { skip: missing('nbdkit', 'nbdfuse', 'fusermount3') },
  async (t) => {
    const disk = await faultyDisk(t, directory(t), 16)
    // Before the mount goes, whoever waits for it must be let go.
    const metad = await withReplicas(t, 'threads = 1\ncomponent_timeout = 0\n')
    t.teardown(() => Promise.resolve(disk.resume()))
    metad.must('metainit', ['d0', '1', '1', disk.path])
    metad.must('metainit', ['d1', '1', '1', metad.disk('file', 16)])
    const hung = await open(t, metad, 'd0')
    const other = await open(t, metad, 'd1')
    t.equal((await hung.write(1_048_576n, PAGE)).error, 0)
    disk.hang()
    let answered = 0
    const waiting = [
      hung.write(0n, PAGE),
      hung.write(8192n, PAGE, CMD_FLAG.fua),
      hung.read(65_536n, 4096),
      hung.cache(131_072n, 65_536),
      hung.zero(262_144n, 4096),
      hung.flush(),
    ].map((request) => request.then((answer) => ((answered += 1), answer.error)))
    for (let i = 0; i < 100; i++) {
      t.equal((await other.write(BigInt(i) * 4096n, PAGE)).error, 0)
      t.same((await other.read(BigInt(i) * 4096n, 4096)).data, PAGE)
    }
    t.equal((await other.flush()).error, 0)
    // A hint is answered when the kernel has taken it; everything else needs the disk.
    t.ok(answered <= 1, 'the hung component has answered nothing')
    disk.resume()
    t.same(await Promise.all(waiting), [0, 0, 0, 0, 0, 0])
    t.same((await hung.read(0n, 4096)).data, PAGE)
  },
)

t.test(
  'FUA on FUSE: the sync reaches the disk after the write and before the answer',
  { skip: missing('nbdkit', 'nbdfuse', 'fusermount3') },
  async (t) => {
    const disk = await faultyDisk(t, directory(t), 16)
    const metad = await withReplicas(t, '')
    metad.must('metainit', ['d0', '1', '1', disk.path])
    const client = await open(t, metad, 'd0')
    for (const [offset, send] of [
      [4096n, () => client.write(4096n, PAGE, CMD_FLAG.fua)],
      [9000n, () => client.write(9000n, PAGE, CMD_FLAG.fua)],
      [16_384n, () => client.zero(16_384n, 4096, CMD_FLAG.fua)],
      [20_480n, () => client.write(20_480n, PAGE).then(() => client.flush())],
    ] as const) {
      const before = disk.log().length
      t.equal((await send()).error, 0)
      const seen = disk.log().slice(before)
      const written = seen.findLastIndex((l) => /(?:Write|Zero|Trim) id=.*return=0/.test(l))
      const synced = seen.findLastIndex((l) => /Flush id=.*return=0/.test(l))
      t.ok(written >= 0 && synced > written, `${offset}: ${seen.join('\n')}`)
    }
  },
)

t.test(
  'a write-back that failed is told to every client of every thread that syncs, for good',
  { skip: missingBlock('nbdkit', 'nbdfuse') },
  async (t) => {
    const disk = await faultyLoop(t, directory(t), 16)
    const metad = await withReplicas(t, 'threads = 2\nio = buffered\n')
    // The kernel reports each loss once: every round is a new chance for one thread to hear of it alone.
    for (let round = 0; round < 5; round++) {
      metad.must('metainit', ['d0', '1', '1', disk.device])
      const clients = await Promise.all(Array.from({ length: 4 }, () => open(t, metad, 'd0')))
      const [writer] = clients
      if (writer === undefined) throw new Error('no client')
      t.equal((await writer.write(0n, Buffer.alloc(4096, round))).error, 0)
      t.same(await Promise.all(clients.map((c) => c.flush().then((a) => a.error))), [0, 0, 0, 0])
      disk.failWrites(true)
      t.equal((await writer.write(65_536n, Buffer.alloc(1_048_576, round))).error, 0, 'in the page cache')
      const during = await Promise.all(clients.map((c) => c.flush().then((a) => a.error)))
      disk.failWrites(false)
      t.same(during, [EIO, EIO, EIO, EIO], 'what was acknowledged is lost, and nobody is told otherwise')
      const after = await Promise.all(clients.map((c) => c.flush().then((a) => a.error)))
      t.same(after, [EIO, EIO, EIO, EIO], 'nor later')
      t.equal((await writer.write(0n, PAGE, CMD_FLAG.fua)).error, EIO)
      for (const client of clients) await client.disconnect()
      metad.must('metaclear', ['d0'])
    }
  },
)

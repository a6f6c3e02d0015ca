/**
 * base:allocation of real storage: sparse components, trims and writes, as foreign clients see them. Never a hole
 * where data is; a hole where a component has one, after a restart too.
 */
import { randomBytes } from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { startMetad } from '../tools/daemon.js'
import { foreign, missing, mustRun, sizeOf } from '../tools/foreign.js'
import { NbdClient } from '../tools/nbdclient.js'

const MIB = 1 << 20
const metad = await startMetad(t)
const disk = (name: string): string => metad.disk(name, 32)
metad.must('metadb', ['-a', '-f', ...[0, 1, 2].map((i) => join(metad.root, `disks/replica${i}`))])
metad.must('metainit', ['d4', '1', '1', disk('one')])
metad.must('metainit', ['d3', '1', '3', disk('s0'), disk('s1'), disk('s2'), '-i', '64k'])
metad.must('metainit', ['d5', '2', '1', disk('c0'), '1', disk('c1')])
metad.must('metainit', ['d1', '1', '1', disk('m0')])
metad.must('metainit', ['d2', '1', '1', disk('m1')])
// Both sides are new and empty, and known to be equal: no copy fills the second one.
metad.must('metainit', ['d0', '-m', 'd1', 'd2'])
const KINDS = ['d4', 'd3', 'd5', 'd0']

interface Part {
  readonly offset: number
  readonly length: number
  readonly hole: boolean
}

/** The whole metadevice, asked as nbdcopy asks: again from where the last answer ended. */
const holes = async (name: string, extended = false): Promise<readonly Part[]> => {
  const client = await NbdClient.open(metad.socket, {
    name,
    extended,
    structured: true,
    contexts: ['metadisk:state', 'base:allocation'],
  })
  const id = client.contexts.get('base:allocation')
  const parts: Part[] = []
  for (let at = 0; at < Number(client.size);) {
    const { error, extents } = await client.blockStatus(BigInt(at), Number(client.size) - at)
    if (error !== 0) throw new Error(`error ${error}`)
    for (const e of extents) {
      if (e.context !== id) continue
      if (e.flags !== 0n && e.flags !== 3n) throw new Error(`flags ${e.flags}`)
      parts.push({ offset: at, length: Number(e.length), hole: e.flags === 3n })
      at += Number(e.length)
    }
  }
  await client.disconnect()
  return parts
}

const zero = (bytes: Buffer): boolean => bytes.equals(Buffer.alloc(bytes.length))
const isHole = (parts: readonly Part[], offset: number, length: number): boolean =>
  parts.filter((p) => p.offset < offset + length && p.offset + p.length > offset).every((p) => p.hole)
const isData = (parts: readonly Part[], offset: number, length: number): boolean =>
  parts.filter((p) => p.offset < offset + length && p.offset + p.length > offset).every((p) => !p.hole)

/** Whether this file system tells its holes; where it does not, all is data. */
const tells = statSync(join(metad.root, 'disks/one')).blocks === 0

t.test('never a hole where data is, a hole where nothing was written', async (t) => {
  for (const name of KINDS) {
    const client = await NbdClient.open(metad.socket, { name })
    const size = Number(client.size)
    const model = Buffer.alloc(size)
    const written: Part[] = []
    for (let i = 0; i < 12; i++) {
      const offset = Math.floor(Math.random() * (size - 200_000))
      const data = randomBytes(1 + Math.floor(Math.random() * 200_000))
      t.equal((await client.write(BigInt(offset), data, i % 2)).error, 0)
      data.copy(model, offset)
      written.push({ offset, length: data.length, hole: false })
    }
    for (const extended of [false, true]) {
      const parts = await holes(name, extended)
      t.equal(
        parts.reduce((n, p) => n + p.length, 0),
        size,
        `${name}: every byte once`,
      )
      for (const w of written) t.ok(isData(parts, w.offset, w.length), `${name}: ${w.length} bytes at ${w.offset}`)
      for (const p of parts.filter((p) => p.hole))
        t.ok(zero(model.subarray(p.offset, p.offset + p.length)), `${name}: hole at ${p.offset}`)
      if (tells) t.ok(parts.filter((p) => p.hole).reduce((n, p) => n + p.length, 0) > size / 2, `${name}: holes`)
    }
    // One byte into a hole makes it data at once, before any flush.
    const hole = (await holes(name)).find((p) => p.hole && p.length > MIB)
    if (hole !== undefined) {
      const at = hole.offset + Math.floor(hole.length / 2)
      t.equal((await client.write(BigInt(at), Buffer.from('x'))).error, 0)
      t.ok(isData(await holes(name), at, 1), `${name}: a byte`)
    }
    await client.disconnect()
  }
})

t.test('what is trimmed is a hole, its neighbours are not', { skip: tells ? false : 'no holes here' }, async (t) => {
  for (const name of KINDS) {
    const client = await NbdClient.open(metad.socket, { name })
    const data = randomBytes(4 * MIB)
    t.equal((await client.write(BigInt(2 * MIB), data)).error, 0)
    t.equal((await client.trim(BigInt(3 * MIB), MIB)).error, 0)
    t.equal((await client.zero(BigInt(5 * MIB), 512 << 10)).error, 0)
    const check = async (when: string): Promise<void> => {
      const parts = await holes(name)
      t.ok(isHole(parts, 3 * MIB, MIB), `${name}: trimmed, ${when}`)
      t.ok(isHole(parts, 5 * MIB, 512 << 10), `${name}: zeroed, ${when}`)
      t.ok(isData(parts, 2 * MIB, MIB) && isData(parts, 4 * MIB, MIB), `${name}: neighbours, ${when}`)
    }
    await check('at once')
    t.equal((await client.flush()).error, 0)
    await check('after a flush')
    await client.disconnect()
  }
  await metad.stop()
  await metad.start()
  for (const name of KINDS) t.ok(isHole(await holes(name), 3 * MIB, MIB), `${name}: after a restart`)
})

t.test('a mirror has a hole only where both sides have one', { skip: tells ? false : 'no holes here' }, async (t) => {
  metad.must('metainit', ['d11', '1', '1', disk('n0')])
  metad.must('metainit', ['d12', '1', '1', disk('n1')])
  metad.must('metainit', ['d10', '-m', 'd11'])
  t.ok(isHole(await holes('d10'), 0, MIB), 'one side, empty')
  metad.must('metattach', ['d10', 'd12'])
  const end = Date.now() + 30_000
  while (/Resync/i.test(metad.must('metastat', ['d10'])) && Date.now() < end)
    await new Promise((resolve) => setTimeout(resolve, 50))
  const parts = await holes('d10')
  for (const p of parts.filter((p) => p.hole)) t.ok(p.length > 0)
  // The copy wrote zeroes: the second side has them as data or as holes, and the answer says no more than both do.
  const client = await NbdClient.open(metad.socket, { name: 'd10' })
  for (const p of parts.filter((p) => p.hole).slice(0, 4)) {
    const n = Math.min(p.length, MIB)
    t.ok(zero((await client.read(BigInt(p.offset), n)).data))
  }
  t.equal((await client.trim(0n, 8 * MIB)).error, 0)
  t.ok(isHole(await holes('d10'), 0, 8 * MIB), 'both sides trimmed')
  t.equal((await client.write(BigInt(MIB), randomBytes(4096))).error, 0)
  t.ok(isData(await holes('d10'), MIB, 4096))
  await client.disconnect()
})

t.test(
  'nbdinfo, qemu-img and nbdcopy make use of it',
  { skip: missing('nbdinfo', 'qemu-img', 'nbdcopy') },
  async (t) => {
    for (const name of KINDS) {
      const mine = await holes(name)
      const said = JSON.parse(await mustRun('nbdinfo', ['--map', '--json', metad.nbdUri(name)])) as {
        offset: number
        length: number
        type: number
      }[]
      let at = 0
      for (const e of said) {
        t.equal(e.offset, at)
        at += e.length
        t.ok(e.type === 3 ? isHole(mine, e.offset, e.length) : isData(mine, e.offset, e.length), `${name} ${e.offset}`)
      }
      t.equal(at, sizeOf(metad, name))
      const map = JSON.parse(await mustRun('qemu-img', ['map', '--output=json', '-f', 'raw', metad.nbdUri(name)])) as {
        start: number
        length: number
        zero: boolean
      }[]
      for (const e of map.filter((e) => e.zero)) t.ok(isHole(mine, e.start, e.length), `${name}: qemu-img ${e.start}`)
      // A copy that skips holes holds the same bytes, and is as sparse.
      const copy = join(metad.root, `${name}.copy`)
      await mustRun('nbdcopy', [metad.nbdUri(name), copy])
      const compare = ['compare', '-f', 'raw', '-F', 'raw', copy, metad.nbdUri(name)]
      t.equal((await foreign('qemu-img', compare)).status, 0, `${name}: equal`)
      const client = await NbdClient.open(metad.socket, { name })
      const { data } = await client.read(0n, 16 * MIB)
      t.ok(data.equals(readFileSync(copy).subarray(0, 16 * MIB)))
      await client.disconnect()
      if (tells) t.ok(statSync(copy).blocks * 512 < sizeOf(metad, name) / 2, `${name}: sparse`)
    }
  },
)

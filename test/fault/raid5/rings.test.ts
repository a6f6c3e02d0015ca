/** What a restart makes of a journal that cannot be read, or of columns that it cannot write: whatever can be read stays so. */
import { closeSync, copyFileSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { missingFaultDisk } from '../../tools/faultdisk.js'
import type { NbdClient } from '../../tools/nbdclient.js'
import { answered, isOkay, MIB, pattern, rig, type Rig } from './rig.js'

t.setTimeout(1_200_000)
const skip = missingFaultDisk()

const PLACES = [
  [1, 0, 64 << 10],
  [2, 3 * MIB + 512, 4096],
  [3, 7 * MIB + 1536, 100 << 10],
] as const

const writeAll = async (t: Test, nbd: NbdClient, salt = 0): Promise<void> => {
  for (const [seed, offset, length] of PLACES)
    t.equal(await answered(nbd.write(BigInt(offset), pattern(seed + salt, length))), 0, `write ${offset}`)
  t.equal(await answered(nbd.flush()), 0, 'flush')
}
const readAll = async (t: Test, nbd: NbdClient, what: string, salt = 0): Promise<void> => {
  for (const [seed, offset, length] of PLACES) {
    const answer = await nbd.read(BigInt(offset), length)
    t.ok(answer.error === 0 && answer.data.equals(pattern(seed + salt, length)), `${what}: ${offset}`)
  }
}

/** Where the ring of a column begins: behind the block with the mark of our headers (docs/raid5.md). */
const ringOf = ({ disks }: Rig, disk: string): number => {
  const image = readFileSync(disks.image(disk))
  for (let at = 0; at + 1024 <= image.length; at += 512)
    if (image.toString('latin1', at + 92, at + 96) === 'MDJ1') return at + 512
  throw new Error(`no header on ${disk}`)
}
const dataOf = (r: Rig, disk: string): number => {
  const [, start] = new RegExp(`${r.disks.path(disk)} +(\\d+)`).exec(r.stat()) ?? []
  return Number(start) * 512
}
/** Of the first line: one group, which is the newest. */
const NEWEST = pattern(99, 32 << 10)
const writeNewest = async (t: Test, nbd: NbdClient): Promise<void> => {
  t.equal(await answered(nbd.write(0n, NEWEST)), 0)
  t.equal(await answered(nbd.flush()), 0)
}
/** As if what is in place of the first line had been lost with the power. */
const lost = (r: Rig, starts: Readonly<Record<string, number>>): void => {
  for (const [disk, at] of Object.entries(starts)) {
    const image = openSync(r.disks.image(disk), 'r+')
    writeSync(image, Buffer.alloc(16 << 10, 0xee), 0, 16 << 10, at)
    closeSync(image)
  }
}
const startsOf = (r: Rig): Readonly<Record<string, number>> =>
  Object.fromEntries(['a', 'b', 'c'].map((d) => [d, dataOf(r, d)]))

/** Sectors that a write mends. */
const spoil = (r: Rig, disk: string, block: number, blocks = 1): void =>
  r.disks.tell(`${disk} fail read EIO from=${ringOf(r, disk) + block * 512} bytes=${blocks * 512} until-written`)

t.test('a bad sector in the journal of a degraded device: it is served after a restart', { skip }, async (t) => {
  const r = await rig(t)
  const { metad, disks } = r
  const nbd = await r.client()
  disks.tell('a fail all EIO')
  await writeAll(t, nbd)
  nbd.destroy()
  t.equal(await metad.stop(), 0)
  spoil(r, 'b', 300)
  spoil(r, 'c', 310, 8)
  await metad.start()
  await readAll(t, await r.client(), 'after a stop')
  t.match(r.stat(), /State: Needs Maintenance/)
  t.notMatch(r.stat(), /Last Erred/)
  t.match(metad.log(), /read error on \S*b/)
  t.notMatch(metad.log(), /parts of the journal were damaged/)
  await writeAll(t, await r.client(), 10)
  // What the newest groups need cannot be read: all of it is in place already, and that nobody knows is told.
  await r.again()
  await readAll(t, await r.client(), 'after a kill', 10)
  await metad.stop()
  spoil(r, 'c', 0, 40)
  await metad.start()
  await readAll(t, await r.client(), 'without the beginning of a ring', 10)
  disks.tell('a ok')
  metad.must('metareplace', ['-e', 'd5', disks.path('a')])
  await r.until('in step', isOkay)
  t.equal(metad.must('metasync', ['--verify', 'd5']), 'd5: parity is right\n')
})

t.test('a bad sector in the journal of a whole device costs nothing', { skip }, async (t) => {
  const r = await rig(t)
  const { metad, disks } = r
  for (const [salt, disk, block] of [
    [0, 'a', 0],
    [10, 'b', 2],
    [20, 'c', 5],
  ] as const) {
    await writeAll(t, await r.client(), salt)
    await metad.kill9()
    spoil(r, disk, block)
    await r.again()
    await readAll(t, await r.client(), `${disk} has a bad block`, salt)
    t.ok(isOkay(r.stat()), r.stat())
    t.equal(metad.must('metasync', ['--verify', 'd5']), 'd5: parity is right\n')
    disks.tell(`${disk} ok`)
  }
  t.notMatch(metad.log(), /parts of the journal were damaged/)
})

t.test(
  'two columns take no writes: what the journal has can be read, and is in place when one does',
  { skip },
  async (t) => {
    const r = await rig(t)
    const { metad, disks } = r
    const readBoth = async (client: NbdClient, what: string): Promise<void> => {
      const { error, data } = await client.read(0n, 64 << 10)
      const older = pattern(11, 64 << 10).subarray(32 << 10)
      t.ok(error === 0 && data.equals(Buffer.concat([NEWEST, older])), what)
    }
    const nbd = await r.client()
    await writeAll(t, nbd)
    disks.tell('a fail all EIO')
    await writeAll(t, nbd, 10)
    disks.tell(`b fail write EIO from=${dataOf(r, 'b')}`)
    // One group: its flush is answered when it is in the journal.
    await writeNewest(t, nbd)
    await r.until('known', (stat) => stat.includes('Last Erred'))
    await r.again()
    const reader = await r.client()
    await readBoth(reader, 'from the journal')
    t.not(await answered(reader.write(0n, pattern(1, 4096))), 0, 'no writes')
    t.match(metad.log(), /d5: its journal cannot be replayed; read only/)
    t.match(r.stat(), /Last Erred/)
    await readBoth(reader, 'still')
    metad.must('metasync', ['d5'])
    await readBoth(reader, 'after another try')
    t.not(metad.run('metaclear', ['d5']).status, 0, 'what is in the journal alone does not go unasked')
    await r.again()
    await readBoth(await r.client(), 'after another start')
    disks.tell('b ok')
    metad.must('metastat', ['-i'])
    await r.until('written again', (stat) => !stat.includes('Last Erred'))
    await writeAll(t, await r.client(), 30)
    disks.tell('a ok')
    metad.must('metareplace', ['-e', 'd5', disks.path('a')])
    await r.until('in step', isOkay)
    await readAll(t, await r.client(), 'in the end', 30)
    t.equal(metad.must('metasync', ['--verify', 'd5']), 'd5: parity is right\n')
  },
)

t.test('a state database that went back: the newest that the journal has is replayed', { skip }, async (t) => {
  const r = await rig(t)
  const { metad } = r
  const database = join(metad.root, 'replicas')
  const nbd = await r.client()
  await writeAll(t, nbd)
  nbd.destroy()
  const starts = startsOf(r)
  await r.again()
  t.equal(await metad.stop(), 0)
  copyFileSync(database, `${database}.old`)
  await metad.start()
  await r.again()
  await writeNewest(t, await r.client())
  await metad.kill9()
  copyFileSync(`${database}.old`, database)
  lost(r, starts)
  await metad.start()
  const { error, data } = await (await r.client()).read(0n, NEWEST.length)
  t.ok(error === 0 && data.equals(NEWEST))
  t.match(metad.log(), /d5: its journal is newer than the state database/)
  t.equal(metad.must('metasync', ['--verify', 'd5']), 'd5: parity is right\n')
  const said = (): number => metad.log().split('newer than the state database').length
  const before = said()
  await r.again()
  t.equal(said(), before, 'once')
})

t.test('-k replays a journal whose record was lost, and none of a device that was cleared', { skip }, async (t) => {
  const r = await rig(t)
  const { metad, disks } = r
  const starts = startsOf(r)
  const again = ['d5', '-r', ...['a', 'b', 'c'].map((d) => disks.path(d)), '-k', '-i', '16k']
  const read = async (): Promise<Buffer> => {
    const { error, data } = await (await r.client()).read(0n, NEWEST.length)
    t.equal(error, 0)
    return data
  }
  await writeNewest(t, await r.client())
  await metad.kill9()
  lost(r, starts)
  rmSync(join(metad.root, 'replicas'))
  rmSync(join(metad.root, 'etc/mddb.cf'))
  await metad.start()
  metad.must('metadb', ['-a', '-f', join(metad.root, 'others')])
  metad.must('metainit', again)
  t.ok((await read()).equals(NEWEST), 'replayed')
  t.match(metad.log(), /journal replayed/)
  t.notMatch(metad.log(), /newer than the state database/)
  t.equal(metad.must('metasync', ['--verify', 'd5']), 'd5: parity is right\n')
  await writeNewest(t, await r.client())
  await r.again()
  metad.must('metaclear', ['d5'])
  lost(r, starts)
  metad.must('metainit', again)
  t.notOk((await read()).equals(NEWEST), 'what others wrote since stays')
})

/** Columns that join a RAID5 device on disks that fail or with a metad that is killed, and what one bad block costs. */
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { missingFaultDisk } from '../../tools/faultdisk.js'
import type { NbdClient } from '../../tools/nbdclient.js'
import { answered, isOkay, MIB, pattern, rig, type Rig, SIZE } from './rig.js'

t.setTimeout(600_000)
const skip = missingFaultDisk()

const PLACES = [0, 5 * MIB + 512, 21 * MIB] as const
const LENGTH = 96 << 10
const fill = async (t: Test, nbd: NbdClient, seed: number): Promise<void> => {
  for (const at of PLACES) t.equal(await answered(nbd.write(BigInt(at), pattern(seed + at, LENGTH))), 0, `write ${at}`)
  t.equal(await answered(nbd.flush()), 0)
}
const look = async (t: Test, nbd: NbdClient, seed: number, what: string): Promise<void> => {
  for (const at of PLACES) {
    const answer = await nbd.read(BigInt(at), LENGTH)
    t.ok(answer.error === 0 && answer.data.equals(pattern(seed + at, LENGTH)), `${what}: ${at}`)
  }
}
const parityIsRight = (t: Test, { metad }: Rig): void => {
  t.equal(metad.must('metasync', ['--verify', 'd5']), 'd5: parity is right\n')
}
/** Blocks of 512 bytes. */
const sizeIn = (stat: string): number => Number(/Size: (\d+) blocks/.exec(stat)?.[1])

t.test('columns join when all of them are zeroes: one fails, and is replaced', { skip }, async (t) => {
  const r = await rig(t)
  const { metad, disks } = r
  const nbd = await r.client()
  await fill(t, nbd, 1)
  const before = sizeIn(r.stat())
  disks.tell('t fail write,zero EIO')
  t.equal(metad.must('metattach', ['d5', disks.path('s'), disks.path('t')]), 'd5: components are attached\n')
  const failed = await r.until('the bad one has failed', (s) => /Maintenance/.test(s.replace('Needs', '')))
  t.match(failed, /State: Needs Maintenance/)
  t.equal(sizeIn(failed), before, 'nothing of them serves')
  t.ok(failed.includes(`Invoke: metareplace d5 ${disks.path('t')} <new device>`), failed)
  await fill(t, nbd, 2)
  const refused = metad.run('metattach', ['d5', join(metad.root, 'more')])
  t.match(refused.stderr, /metadevice in use/)
  t.match(metad.run('metareplace', ['-e', 'd5', disks.path('a')]).stderr, /must replace errored component first/)
  disks.tell('t ok')
  t.equal(metad.must('metareplace', ['-e', 'd5', disks.path('t')]), `d5: device ${disks.path('t')} is enabled\n`)
  const joined = await r.until('joined', isOkay)
  t.ok(sizeIn(joined) > before + 2 * (SIZE - 2) * 2048, `${before} to ${sizeIn(joined)} blocks`)
  await look(t, nbd, 2, 'what was written meanwhile')
  const wide = await r.client()
  const behind = BigInt(before * 512 + MIB)
  t.ok((await wide.read(behind, LENGTH)).data.equals(Buffer.alloc(LENGTH)), 'the new space is zeroes')
  t.equal(await answered(wide.write(behind, pattern(9, LENGTH))), 0)
  t.equal(await answered(wide.flush()), 0)
  parityIsRight(t, r)
  disks.tell('s fail all EIO')
  t.ok((await wide.read(behind, LENGTH)).data.equals(pattern(9, LENGTH)), 'also without the column it lies on')
  await look(t, wide, 2, 'the rest')
  disks.tell('s ok')
})

t.test('killed while a column is zeroed: begun again, and nothing of it served before', { skip }, async (t) => {
  const r = await rig(t)
  const { metad, disks } = r
  await fill(t, await r.client(), 1)
  const before = sizeIn(r.stat())
  disks.tell('s hang write,zero')
  metad.must('metattach', ['d5', disks.path('s')])
  t.match(r.stat(), /Initializing/)
  await r.again()
  disks.tell('s ok')
  const joined = await r.until('joined', (s) => isOkay(s) && sizeIn(s) > before)
  t.match(joined, /Concatenated Devices/)
  const nbd = await r.client()
  await look(t, nbd, 1, 'as before')
  t.ok((await nbd.read(BigInt(before * 512), LENGTH)).data.equals(Buffer.alloc(LENGTH)))
  parityIsRight(t, r)
})

t.test('a bad block of a degraded device costs that block: the rest is read and written', { skip }, async (t) => {
  const r = await rig(t, 'io = direct\ncomponent_timeout = 2\ncomponent_read_errors = 20\n')
  const { metad, disks } = r
  await fill(t, await r.client(), 1)
  await r.again()
  disks.tell('a fail write,sync EIO')
  const nbd = await r.client()
  await fill(t, nbd, 2)
  t.match(r.stat(), /Maintenance/)
  disks.tell(`b fail read EIO from=${12 * MIB} bytes=4096`)
  // Of both columns that are left one segment in three, and those of the first that are made from the bad ones.
  let lost = 0
  for (let at = 0; at < 40 * MIB; at += 64 << 10) lost += (await answered(nbd.read(BigInt(at), 64 << 10))) === 0 ? 0 : 1
  t.ok(lost >= 1 && lost <= 3, `${lost} pieces of 64 KiB`)
  t.notMatch(r.stat(), /Last Erred/)
  await fill(t, nbd, 3)
  await look(t, nbd, 3, 'writes go on')
  disks.tell('a ok')
  disks.tell('b ok')
  metad.must('metareplace', ['-e', 'd5', disks.path('a')])
  await r.until('in step', isOkay)
  parityIsRight(t, r)
})

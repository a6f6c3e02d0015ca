/** A column is made from others of which one has a block that cannot be read: it is told, nothing loops, nothing else is lost. */
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { missingFaultDisk } from '../../tools/faultdisk.js'
import { answered, CONF, isOkay, MIB, pattern, rig, type Rig } from './rig.js'

t.setTimeout(600_000)
const skip = missingFaultDisk()
/** Blocks of the column's data; far from what the clients of this file use. */
const BAD = 30_000

const dataOf = (r: Rig, disk: string): number =>
  Number(new RegExp(`${r.disks.path(disk)} +(\\d+)`).exec(r.stat())?.[1]) * 512
const begun = ({ metad }: Rig): readonly string[] =>
  [...metad.log().matchAll(/"kind":"regenerate","column":1\},"from":(\d+),"msg":"job begins"/g)].map((m) => m[1] ?? '')
const ended = ({ metad }: Rig): number => metad.log().split(/"kind":"regenerate".*"msg":"job failed"/).length - 1

/** Until the job of that number has failed. */
const failed = async (r: Rig, jobs: number): Promise<void> => {
  await r.until(`job ${jobs} has failed`, () => ended(r) >= jobs)
}

t.test('a source has an unreadable block', { skip }, async (t) => {
  const r = await rig(t, `${CONF}resync_bytes_per_second = 8388608\n`)
  const { metad, disks } = r
  const nbd = await r.client()
  const write = async (salt: number): Promise<void> => {
    t.equal(await answered(nbd.write(BigInt(MIB), pattern(salt, MIB))), 0)
    t.equal(await answered(nbd.flush()), 0)
  }
  const reads = async (salt: number): Promise<void> => {
    const { error, data } = await nbd.read(BigInt(MIB), MIB)
    t.ok(error === 0 && data.equals(pattern(salt, MIB)), 'what clients have')
  }
  await write(1)
  disks.tell('b fail write,sync EIO')
  await write(2)
  disks.tell('b ok')
  disks.tell(`a fail read EIO from=${dataOf(r, 'a') + BAD * 512} bytes=512`)
  metad.must('metareplace', ['-e', 'd5', disks.path('b')])
  await failed(r, 1)
  const waiting = (stat: string): void => {
    t.match(stat, /State: Needs Maintenance/)
    t.match(stat, /Invoke: metasync d5\n/)
    t.match(stat, /\/a .* Okay .*\n.*\/b .* Resyncing .*\n.*\/c .* Okay/, 'one block costs no column')
  }
  waiting(r.stat())
  t.match(metad.log(), /md d5: read error on \S*\/a/)
  t.match(metad.log(), /md: d5: needs maintenance, replace terminated/)
  await sleep(1500)
  t.equal(begun(r).length, 1, 'not tried again by itself')
  await write(3)
  await reads(3)

  metad.must('metasync', ['d5'])
  await failed(r, 2)
  t.ok(Number(begun(r)[1]) > 0 && Number(begun(r)[1]) <= BAD, `it went on from ${begun(r)[1]}`)
  await r.again()
  await failed(r, 3)
  waiting(r.stat())
  t.equal(begun(r).length, 3, 'once for a start')

  disks.tell('a ok')
  metad.must('metasync', ['d5'])
  await r.until('in step', isOkay)
  t.equal(metad.must('metasync', ['--verify', 'd5']), 'd5: parity is right\n')
  disks.tell('c fail all EIO')
  const { error, data } = await (await r.client()).read(BigInt(MIB), MIB)
  t.ok(error === 0 && data.equals(pattern(3, MIB)), 'from what was made')
  disks.tell('c ok')
})

t.test('it fails there more often than a disk may: Last Erred, as SVM has it at once', { skip }, async (t) => {
  const r = await rig(t)
  const { metad, disks } = r
  const nbd = await r.client()
  t.equal(await answered(nbd.write(0n, pattern(1, MIB))), 0)
  disks.tell('b fail write,sync EIO')
  t.equal(await answered(nbd.flush()), 0)
  disks.tell('b ok')
  disks.tell(`a fail read EIO from=${dataOf(r, 'a') + BAD * 512} bytes=512`)
  metad.must('metareplace', ['-e', 'd5', disks.path('b')])
  const isLast = (stat: string): boolean => /\/a .* Last Erred/.test(stat)
  for (let jobs = 1; !isLast(r.stat()); jobs++) {
    await failed(r, jobs)
    if (isLast(r.stat())) break
    t.ok(jobs < 20)
    metad.must('metasync', ['d5'])
  }
  const stat = r.stat()
  t.match(stat, /State: Needs Maintenance/)
  t.match(stat, `Invoke: metareplace -f d5 ${disks.path('b')} <new device>`)
  const before = begun(r).length
  await sleep(1500)
  t.equal(begun(r).length, before, 'nothing is tried by itself')
  t.ok((await nbd.read(0n, MIB)).data.equals(pattern(1, MIB)), 'what can be read is')
  disks.tell('a ok')
  metad.must('metastat', ['-i'])
  await r.until('in step', isOkay)
  t.equal(metad.must('metasync', ['--verify', 'd5']), 'd5: parity is right\n')
})

/** What the administrator of a mirror sees when disks fail, what the commands do about it, and what the disks really hold in the end. */
import { closeSync, openSync, writeSync } from 'node:fs'
import t from 'tap'
import { missingFaultDisk } from '../../tools/faultdisk.js'
import { answered, at, inStep, MIB, pattern, rig, SIZE } from './rig.js'

t.setTimeout(1_200_000)
const skip = missingFaultDisk()

t.test('a write error: answered, seen at once, repaired by metareplace -e', { skip, timeout: 180_000 }, async (t) => {
  const { metad, disks, client, stat, until } = await rig(t)
  const nbd = await client()
  disks.tell('b fail write,sync EIO')
  const data = pattern(1, 64 << 10)
  t.equal(await answered(nbd.write(BigInt(5 * MIB), data)), 0, 'the client sees no error')
  // Recorded before the answer, so nobody has to wait for it.
  const bad = stat()
  t.match(bad, /State: Needs maintenance/)
  t.match(bad, `Invoke: metareplace d0 ${disks.path('b')} <new device>`)
  t.match(bad, /b +0 +No +Maintenance/)
  t.match(metad.log(), /WARNING: md: d2: write error on \S*b"/)
  t.match(metad.log(), /WARNING: md: d2: \S*b needs maintenance/)
  const later = pattern(2, 32 << 10)
  t.equal(await answered(nbd.write(BigInt(9 * MIB), later)), 0)
  t.equal(await answered(nbd.flush()), 0)
  t.same((await nbd.read(BigInt(5 * MIB), data.length)).data, data)

  disks.tell('b ok')
  t.match(metad.must('metareplace', ['-e', 'd0', disks.path('b')]), /^d0: device \S*b is enabled\n$/)
  await until('in step again', inStep)
  t.equal(await answered(nbd.flush()), 0)
  for (const disk of ['a', 'b']) {
    t.ok(at(disks.image(disk), 5 * MIB, data.length).equals(data), `${disk} has the first write`)
    t.ok(at(disks.image(disk), 9 * MIB, later.length).equals(later), `${disk} has the second`)
  }
  t.equal(await metad.stop(), 0)
})

t.test('metaoffline and metaonline copy what was written meanwhile', { skip, timeout: 180_000 }, async (t) => {
  const { metad, disks, client, stat, until } = await rig(t)
  const nbd = await client()
  t.match(metad.must('metaoffline', ['d0', 'd2']), 'd0: submirror d2 is offlined\n')
  t.match(stat(), /Invoke: metaonline d0 d2/)
  const data = pattern(8, 128 << 10)
  t.equal(await answered(nbd.write(BigInt(20 * MIB), data)), 0)
  t.equal(await answered(nbd.flush()), 0)
  t.notOk(at(disks.image('b'), 20 * MIB, data.length).equals(data), 'not written meanwhile')
  const before = disks.counters('b').writes
  t.match(metad.must('metaonline', ['d0', 'd2']), 'd0: submirror d2 is onlined\n')
  await until('in step again', inStep)
  t.equal(await answered(nbd.flush()), 0)
  t.ok(at(disks.image('b'), 20 * MIB, data.length).equals(data))
  const copied = disks.counters('b').writes - before
  t.ok(copied > 0 && copied < 16, `a quick resync: ${copied} writes`)
})

t.test('kill -9: only dirty regions are copied', { skip, timeout: 180_000 }, async (t) => {
  const { metad, disks, client, until } = await rig(t)
  const nbd = await client()
  for (const mib of [4, 11]) t.equal(await answered(nbd.write(BigInt(mib * MIB), pattern(mib, 4096))), 0)
  await metad.kill9()
  const before = disks.counters('b').writes
  await metad.start()
  t.match(metad.log(), /"regions":2,"msg":"mirror was in use when metad ended"/)
  await until('in step again', inStep)
  const copied = disks.counters('b').writes - before
  t.ok(copied > 0 && copied < 32, `two regions of ${SIZE}: ${copied} writes`)
  for (const disk of ['a', 'b'])
    for (const mib of [4, 11]) t.ok(at(disks.image(disk), mib * MIB, 4096).equals(pattern(mib, 4096)), `${disk} ${mib}`)
})

t.test('a hot spare takes over at once, and gives back', { skip, timeout: 180_000 }, async (t) => {
  const { metad, disks, client, until } = await rig(t)
  metad.must('metainit', ['hsp001', disks.path('s')])
  metad.must('metaparam', ['-h', 'hsp001', 'd2'])
  const nbd = await client()
  const data = pattern(9, 65536)
  disks.tell('b fail write,sync EIO')
  t.equal(await answered(nbd.write(BigInt(6 * MIB), data)), 0)
  await until('hot spare', (s) => inStep(s) && s.includes(disks.path('s')))
  t.match(metad.log(), /NOTICE: md: d2: hotspared device \S*b with \S*s"/)
  t.equal(await answered(nbd.flush()), 0)
  t.ok(at(disks.image('s'), 6 * MIB, data.length).equals(data))
  t.match(metad.must('metahs', ['-i', 'hsp001']), /In use/)
  disks.tell('b ok')
  metad.must('metareplace', ['-e', 'd0', disks.path('b')])
  await until('in step again', (s) => inStep(s) && !s.includes(disks.path('s')))
  t.match(metad.must('metahs', ['-i', 'hsp001']), /Available/)
  t.ok(at(disks.image('b'), 6 * MIB, data.length).equals(data))
})

t.test(
  'both disks gone: the last one is Last Erred, errors reach the client, nothing crashes',
  { skip, timeout: 180_000 },
  async (t) => {
    const { metad, disks, client, until } = await rig(t)
    const nbd = await client()
    disks.tell('a fail write,sync EIO')
    t.equal(await answered(nbd.write(0n, pattern(1, 4096))), 0)
    disks.tell('b fail write,sync EIO')
    t.not(await answered(nbd.write(BigInt(MIB), pattern(2, 4096))), 0)
    const bad = await until('Last Erred', (s) => /Last Erred/.test(s))
    t.match(bad, /a +0 +No +Maintenance/)
    t.match(metad.log(), /last erred/)
    disks.tell('b ok')
    t.equal(await answered(nbd.write(BigInt(MIB), pattern(3, 4096))), 0, 'a Last Erred disk is still used')
    t.equal(await metad.stop(), 0)
  },
)

t.test('metasync --verify finds and repairs what differs', { skip, timeout: 180_000 }, async (t) => {
  const { metad, disks, client } = await rig(t)
  const nbd = await client()
  t.equal(await answered(nbd.write(BigInt(7 * MIB), pattern(1, 8192))), 0)
  t.equal(await answered(nbd.flush()), 0)
  t.equal(metad.run('metasync', ['--verify', 'd0']).status, 0)
  await metad.stop()
  const fd = openSync(disks.image('b'), 'r+')
  writeSync(fd, pattern(99, 512), 0, 512, 7 * MIB + 1024)
  closeSync(fd)
  await metad.start()
  const found = metad.run('metasync', ['--verify', 'd0'])
  t.equal(found.status, 2)
  metad.must('metasync', ['--verify', '--repair', 'd0'])
  t.equal(metad.run('metasync', ['--verify', 'd0']).status, 0)
  t.ok(at(disks.image('b'), 7 * MIB, 8192).equals(pattern(1, 8192)))
})

/** A disk that hangs: its mirror waits as long as the limit says and no longer, and everybody else not at all. */
import t from 'tap'
import { missingFaultDisk } from '../../tools/faultdisk.js'
import { NbdClient } from '../../tools/nbdclient.js'
import { answered, at, inStep, MIB, pattern, rig } from './rig.js'

const skip = missingFaultDisk()
/** Hundred times what the requests to the others take. */
const LIMIT_SECONDS = 10
const PAGE = pattern(3, 4096)

t.setTimeout(600_000)

t.test('a disk that hangs', { skip, timeout: 300_000 }, async (t) => {
  const { metad, disks, client, stat, until } = await rig(
    t,
    `io = direct\nthreads = 1\ncomponent_timeout = ${LIMIT_SECONDS}\nregion_clean_seconds = 1\n`,
  )
  metad.must('metainit', ['d9', '1', '1', metad.disk('other', 16)])
  const other = await NbdClient.open(metad.socket, { name: 'd9' })
  t.teardown(() => Promise.resolve(other.destroy()))
  const [nbd, reader] = [await client(), await client()]
  t.equal(await answered(nbd.write(BigInt(8 * MIB), PAGE)), 0)

  disks.tell('b hang write,sync')
  let waits = true
  const data = pattern(4, 64 << 10)
  const hung = answered(nbd.write(BigInt(5 * MIB), data)).finally(() => (waits = false))
  for (let i = 0; i < 200; i++) {
    t.equal(await answered(other.write(BigInt(i) * 4096n, PAGE)), 0)
    if (!(await other.read(BigInt(i) * 4096n, PAGE.length)).data.equals(PAGE)) t.fail('another metadevice')
    if (!(await reader.read(BigInt(8 * MIB), PAGE.length)).data.equals(PAGE)) t.fail('the same mirror, elsewhere')
  }
  t.equal(await answered(other.flush()), 0)
  t.equal(waits, true, 'all of them before the limit')

  t.equal(await hung, 0, 'answered by the other side')
  t.match(stat(), /State: Needs maintenance/, 'recorded before the answer')
  t.match(metad.log(), /WARNING: md: d2: write error on \S*b"/)
  t.match(metad.log(), /WARNING: md: d2: \S*b needs maintenance/)
  t.ok(at(disks.image('a'), 5 * MIB, data.length).equals(data))
  const later = Date.now()
  for (let i = 0; i < 20; i++) t.equal(await answered(nbd.write(BigInt((10 + i) * 4096), PAGE)), 0)
  t.ok(Date.now() - later < LIMIT_SECONDS * 1000, 'nobody waits for it again')

  // It cannot be used before it has answered what it was asked.
  t.not(metad.run('metareplace', ['-e', 'd0', disks.path('b')]).status, 0)
  disks.tell('b ok')
  await until('enabled', () => metad.run('metareplace', ['-e', 'd0', disks.path('b')]).status === 0)
  await until('in step again', inStep)
  t.equal(await answered(nbd.flush()), 0)
  t.ok(at(disks.image('b'), 5 * MIB, data.length).equals(data))
  t.equal(await metad.stop(), 0)
})

/**
 * A side of a mirror that does not answer any more: clients are answered within the time limit, other
 * metadevices do not notice, the disk is not used again before the kernel has let go of it, and metad ends.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { load, loadInBackground } from '../../../bench/lib/nbdload.js'
import { until as waitFor } from '../../../bench/lib/process.js'
import { missingFaultDisk } from '../../tools/faultdisk.js'
import { NbdClient } from '../../tools/nbdclient.js'
import { answered, at, inStep, MIB, pattern, rig } from './rig.js'

t.setTimeout(1_200_000)
const skip = missingFaultDisk()
/** Not a limit: what hangs in these tests hangs until it is told otherwise. */
const PATIENCE_MS = 60_000

for (const ops of ['all', 'read', 'write,sync'])
  t.test(`a side hangs (${ops}) under a client that verifies`, { skip, timeout: 300_000 }, async (t) => {
    const { metad, disks, stat, until } = await rig(t)
    metad.must('metainit', ['d5', '1', '1', disks.path('s')])
    const other = await NbdClient.open(metad.socket, { name: 'd5' })
    t.teardown(() => Promise.resolve(other.destroy()))
    const target = ['--unix', metad.socket, '--export', 'd0', '--journal', join(metad.root, 'journal')]
    t.equal((await load([...target, '--init', '--bs', '4k', '--span', '8m', '--qd', '16'])).status, 0)

    const ready = join(metad.root, 'ready')
    const shape = ['--rw', 'mix', '--qd', '16', '--connections', '2', '--flush-every', '50', '--warmup', '0']
    const running = loadInBackground([...target, ...shape, '--seconds', '8', '--ready-file', ready])
    await waitFor('load', () => existsSync(ready), PATIENCE_MS)
    disks.tell(`b hang ${ops}`)
    await waitFor('held', () => disks.counters('b').held > 0, PATIENCE_MS)
    for (let i = 0; i < 50; i++)
      t.equal(await answered(other.write(BigInt(i * 4096), pattern(i, 4096))), 0, 'another metadevice')
    const bad = await until('evicted', (s) => /b +0 +No +Maintenance/.test(s))
    t.match(bad, /State: Needs maintenance/)
    t.match(metad.log(), /WARNING: md: d2: (read|write|flush) error on \S*b/)

    const enable = ['-e', 'd0', disks.path('b')]
    const refused = metad.run('metareplace', enable)
    t.not(refused.status, 0)
    t.match(refused.stderr, /b: Device or resource busy/)
    t.match(stat(), /b +0 +No +Maintenance/, 'nothing changed')

    const { status, report, stderr } = await running.finished
    t.equal(status, 0, stderr)
    t.match(report, { ioErrors: 0, disconnects: 0, unanswered: 0, wrong: { total: 0 } })
    t.equal((await load([...target, '--verify', '--qd', '8'])).status, 0, 'on the side that is left')

    disks.tell('b ok')
    await waitFor('enabled', () => metad.run('metareplace', enable).status === 0, PATIENCE_MS)
    await until('in step again', inStep)
    t.equal((await load([...target, '--verify', '--qd', '8'])).status, 0)
    t.equal(await metad.stop(), 0)
    for (const disk of ['a', 'b'])
      t.equal((await load([...target, '--verify', '--file', disks.image(disk)])).status, 0, `${disk} by itself`)
  })

t.test('a disk that hangs for the moment costs that moment', { skip, timeout: 180_000 }, async (t) => {
  const { metad, disks, client, stat } = await rig(t, 'io = direct\ncomponent_timeout = 60\n')
  const nbd = await client()
  disks.tell('b hang write')
  const data = pattern(3, 65_536)
  const write = nbd.write(BigInt(3 * MIB), data)
  await waitFor('held', () => disks.counters('b').held > 0, PATIENCE_MS)
  disks.tell('b ok')
  t.equal(await answered(write), 0)
  t.ok(inStep(stat()))
  for (const disk of ['a', 'b']) t.ok(at(disks.image(disk), 3 * MIB, data.length).equals(data), disk)
  t.equal(await metad.stop(), 0)
})

for (const seconds of [1, 0])
  t.test(`SIGTERM while a disk hangs, component_timeout = ${seconds}`, { skip, timeout: 180_000 }, async (t) => {
    const { metad, disks, client, until } = await rig(t, `io = direct\ncomponent_timeout = ${seconds}\n`)
    const nbd = await client()
    disks.tell('b hang all')
    const write = nbd.write(0n, pattern(1, 4096)).catch(() => undefined)
    const read = Promise.all([...Array(8).keys()].map((i) => nbd.read(BigInt(i * MIB), 4096))).catch(() => undefined)
    await waitFor('held', () => disks.counters('b').held > 0, PATIENCE_MS)
    if (seconds > 0) await until('evicted', (s) => /Maintenance/.test(s))
    const from = Date.now()
    t.equal(await metad.stop(), 0)
    t.comment(`stopped in ${Date.now() - from} ms`)
    t.match(metad.log(), /"msg":"stopped"/)
    disks.tell('b ok')
    await Promise.all([write, read])
  })

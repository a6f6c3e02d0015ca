/**
 * A disk is lost together with the crash: the quick resync to it, or from it, fails. What is left of the mirror
 * serves, and the disk comes back by metareplace -e alone.
 */
import t from 'tap'
import { until as waitFor } from '../../../bench/lib/process.js'
import { missingFaultDisk } from '../../tools/faultdisk.js'
import { answered, inStep, MIB, pattern, rig, SIZE } from './rig.js'

t.setTimeout(600_000)

const skip = missingFaultDisk()
const PATIENCE_MS = 60_000

for (const [disk, role] of [
  ['b', 'target'],
  ['a', 'source'],
] as const)
  t.test(`the ${role} of the quick resync fails`, { skip, timeout: 240_000 }, async (t) => {
    // Nobody cleans a region before the crash.
    const { metad, disks, client, until } = await rig(
      t,
      'io = direct\ncomponent_timeout = 2\nregion_clean_seconds = 3600\n',
    )
    const before = await client()
    const data = pattern(5, 65_536)
    for (let mib = 0; mib < SIZE; mib++) t.equal(await answered(before.write(BigInt(mib * MIB), data)), 0)
    t.equal(await answered(before.flush()), 0)
    await metad.kill9()
    disks.tell(`${disk} fail read,write,sync EIO`)
    await metad.start()
    const after = await client()
    for (let mib = 0; mib < SIZE; mib++) {
      const read = await after.read(BigInt(mib * MIB), data.length)
      t.equal(read.error, 0)
      t.ok(read.data.equals(data), `at ${mib} MiB`)
    }
    await until('it is in maintenance', (s) => new RegExp(`${disk} +0 +No +Maintenance`).test(s))
    disks.tell(`${disk} ok`)
    const enable = ['-e', 'd0', disks.path(disk)]
    await waitFor('metareplace -e is taken', () => metad.run('metareplace', enable).status === 0, PATIENCE_MS)
    await until('in step', inStep)
    t.equal(metad.run('metasync', ['--verify', 'd0']).status, 0)
    t.equal(await metad.stop(), 0)
  })

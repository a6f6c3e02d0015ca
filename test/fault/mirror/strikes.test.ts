/**
 * A mirror whose disks fail, hang and lose power while clients write, and whose metad is killed (promises P1 to P4),
 * again and again.
 *
 * At most one side misbehaves at a time; what it does is one of SCENARIOS. Half of the cycles end with SIGKILL,
 * some of those with the power of all disks: unsynced sectors are then lost or kept by chance. After a cycle
 * without such trouble the other side may be lost before the restart.
 */
import t from 'tap'
import { sleep, until } from '../../../bench/lib/process.js'
import { missingFaultDisk } from '../../tools/faultdisk.js'
import { cyclesOr, Ordeal } from '../../tools/ordeal.js'
import { seed } from '../../tools/seed.js'

const CYCLES = cyclesOr(16)
/** Component files of the two sides: a stripe of two and a single file. */
const SIDES = [['a1', 'a2'], ['b1']] as const
const CONF = 'log_level = info\ncomponent_timeout = 1\nregion_clean_seconds = 1\nresync_checkpoint_seconds = 1\n'

const TIMEOUT_MS = 120_000 + CYCLES * 30_000
t.setTimeout(TIMEOUT_MS)

/** Words for faultdisk; DISK is one component of one side. */
const SCENARIOS: readonly { readonly name: string; readonly tell: readonly string[] }[] = [
  { name: 'nothing fails', tell: [] },
  { name: 'every write fails', tell: ['DISK fail write EIO'] },
  { name: 'one write fails', tell: ['DISK fail write EIO count=1'] },
  { name: 'the disk is full', tell: ['DISK fail write ENOSPC'] },
  { name: 'a sync fails', tell: ['DISK fail sync EIO count=1'] },
  { name: 'every read fails', tell: ['DISK fail read EIO'] },
  { name: 'bad sectors', tell: ['DISK fail read ENODATA from=65536 bytes=4096 until-written'] },
  { name: 'reads come short', tell: ['DISK short read'] },
  { name: 'writes come short', tell: ['DISK short write'] },
  { name: 'everything fails', tell: ['DISK fail all EIO'] },
  { name: 'a write hangs', tell: ['DISK hang write count=1'] },
  { name: 'a read hangs', tell: ['DISK hang read count=1'] },
  { name: 'a sync hangs', tell: ['DISK hang sync count=1'] },
  { name: 'everything hangs', tell: ['DISK hang all'] },
]

t.test(`${CYCLES} strikes, SEED=${seed}`, { skip: missingFaultDisk(), timeout: TIMEOUT_MS }, async (t) => {
  const all = SIDES.flat()
  const rig = await Ordeal.mirror(t, CONF)
  const { disks, dice } = rig
  let evictions = 0

  for (let cycle = 1; cycle <= CYCLES; cycle++) {
    const scenario = dice.pick(SCENARIOS)
    const disk = dice.pick(dice.pick(SIDES))
    const kill = dice.chance(50)
    const power = kill && dice.chance(40)
    const quiet = scenario.tell.length === 0
    const what = `cycle ${cycle}: ${scenario.name} on ${disk}${kill ? ', kill' : ''}${power ? ', power cut' : ''}`
    for (const d of all) disks.tell(`${d} volatile ${power ? 'on' : 'off'}`)
    const load = await rig.load(kill ? 60 : 3)
    await sleep(dice.below(200))
    for (const word of scenario.tell) disks.tell(word.replace('DISK', disk))
    if (kill) await sleep(dice.below(1500))
    else await rig.unharmed(what, load)
    // Whoever waits for a disk that hangs may not die before it answers.
    const dying = kill ? rig.kill() : Promise.resolve()
    for (const d of all) disks.tell(`${d} ok`)
    await dying
    if (kill) await rig.unharmed(what, load)
    // What hung has reached the disk by now; none of it comes after the cut.
    await until('no request hangs', () => all.every((d) => disks.counters(d).held === 0))
    if (power)
      for (const d of all) {
        disks.tell(`${d} powercut ${dice.below(1 << 30)}`)
        disks.tell(`${d} ok`)
      }
    const lost = kill && quiet && dice.chance(50) ? dice.pick(SIDES) : []
    for (const d of lost) disks.tell(`${d} fail all EIO`)
    if (kill) await rig.restart()
    await rig.sound(`${what}${lost.length > 0 ? `, ${lost.join(' ')} lost` : ''}`, ['--settle'], !power)
    for (const d of lost) disks.tell(`${d} ok`)
    evictions += await rig.repaired()
    await rig.sound(`cycle ${cycle}: in step`)
    await rig.sidesEqual(`cycle ${cycle}`)
  }
  await rig.metad.stop()
  await rig.diskSound('the single file is a full copy', 'b1')
  t.comment(`${evictions} components were evicted and brought back, ${rig.cutOff} requests met a kill`)
  t.ok(evictions > 0 && rig.cutOff > 0, 'disks were evicted and requests were cut off')
})

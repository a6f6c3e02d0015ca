/**
 * A RAID5 device whose columns fail, hang and lose power while clients write, and whose metad is killed (promises P1
 * to P4), again and again.
 *
 * At most one column misbehaves at a time; what it does is one of SCENARIOS. Most cycles end with SIGKILL, some of those
 * with the power of all disks: unsynced sectors are then lost or kept by chance. Half of the kills that nothing else
 * went before take one column along: what it had must follow from the others, with what was just being written.
 */
import t from 'tap'
import { sleep, until } from '../../../bench/lib/process.js'
import { missingFaultDisk } from '../../tools/faultdisk.js'
import { cyclesOr, Ordeal } from '../../tools/ordeal.js'
import { seed } from '../../tools/seed.js'

const CYCLES = cyclesOr(12)
const COLUMNS = ['c1', 'c2', 'c3', 'c4'] as const
const CONF = 'log_level = info\ncomponent_timeout = 1\nresync_checkpoint_seconds = 1\n'

const TIMEOUT_MS = 120_000 + CYCLES * 30_000
t.setTimeout(TIMEOUT_MS)

/** Words for faultdisk; DISK is one column. */
const SCENARIOS: readonly { readonly name: string; readonly tell: readonly string[] }[] = [
  // The write hole is here: a kill, and then a column less.
  { name: 'nothing fails', tell: [] },
  { name: 'nothing fails', tell: [] },
  { name: 'nothing fails', tell: [] },
  { name: 'every write fails', tell: ['DISK fail write EIO'] },
  { name: 'one write fails', tell: ['DISK fail write EIO count=1'] },
  { name: 'a sync fails', tell: ['DISK fail sync EIO count=1'] },
  { name: 'every read fails', tell: ['DISK fail read EIO'] },
  { name: 'bad sectors', tell: ['DISK fail read ENODATA from=262144 bytes=4096 until-written'] },
  { name: 'reads come short', tell: ['DISK short read'] },
  { name: 'writes come short', tell: ['DISK short write'] },
  { name: 'everything fails', tell: ['DISK fail all EIO'] },
  { name: 'a write hangs', tell: ['DISK hang write count=1'] },
  { name: 'a sync hangs', tell: ['DISK hang sync count=1'] },
  { name: 'everything hangs', tell: ['DISK hang all'] },
]

t.test(`${CYCLES} strikes, SEED=${seed}`, { skip: missingFaultDisk(), timeout: TIMEOUT_MS }, async (t) => {
  const rig = await Ordeal.raid5(t, CONF, COLUMNS.length)
  const { disks, dice } = rig
  let evictions = 0
  let losses = 0

  for (let cycle = 1; cycle <= CYCLES; cycle++) {
    const scenario = dice.pick(SCENARIOS)
    const disk = dice.pick(COLUMNS)
    const quiet = scenario.tell.length === 0
    const kill = quiet || dice.chance(40)
    const power = kill && dice.chance(40)
    const what = `cycle ${cycle}: ${scenario.name} on ${disk}${kill ? ', kill' : ''}${power ? ', power cut' : ''}`
    for (const d of COLUMNS) disks.tell(`${d} volatile ${power ? 'on' : 'off'}`)
    const load = await rig.load(kill ? 60 : 2)
    await sleep(dice.below(200))
    for (const word of scenario.tell) disks.tell(word.replace('DISK', disk))
    if (kill) await sleep(dice.below(1200))
    else await rig.unharmed(what, load)
    // Whoever waits for a disk that hangs may not die before it answers.
    const dying = kill ? rig.kill() : Promise.resolve()
    for (const d of COLUMNS) disks.tell(`${d} ok`)
    await dying
    if (kill) await rig.unharmed(what, load)
    // What hung has reached the disk by now; none of it comes after the cut.
    await until('no request hangs', () => COLUMNS.every((d) => disks.counters(d).held === 0))
    if (power)
      for (const d of COLUMNS) {
        disks.tell(`${d} powercut ${dice.below(1 << 30)}`)
        disks.tell(`${d} ok`)
      }
    const lost = kill && quiet && dice.chance(50)
    if (lost) {
      disks.tell(`${disk} fail all EIO`)
      losses++
    }
    if (kill) await rig.restart()
    // What is acknowledged and not flushed is in metad's memory, so a kill is as good as a power cut.
    await rig.sound(`${what}${lost ? `, ${disk} lost` : ''}`, ['--settle'], !kill)
    if (kill && quiet && !lost) await rig.parityRight(`${what}, at once`, true)
    if (lost) disks.tell(`${disk} ok`)
    const enabled = await rig.repaired()
    evictions += enabled
    await rig.sound(`cycle ${cycle}: in step`)
    await rig.parityRight(`cycle ${cycle}`, false)
  }
  await rig.columnsHold()
  t.comment(`${evictions} columns were brought back, ${losses} were lost by a kill, ${rig.cutOff} requests met one`)
  t.ok(evictions > 0 && rig.cutOff > 0, 'columns were evicted and requests were cut off')
})

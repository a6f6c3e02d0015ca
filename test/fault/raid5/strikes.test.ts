/**
 * A RAID5 device whose columns fail, hang and lose power while clients write, and whose metad is killed (promises P1
 * to P4), again and again.
 *
 * At most one column misbehaves at a time; what it does is one of SCENARIOS. Most cycles end with SIGKILL, some of those
 * with the power of all disks: unsynced sectors are then lost or kept by chance. Half of the kills that nothing else
 * went before take one column along: what it had must follow from the others, with what was just being written.
 */
import t from 'tap'
import { missingFaultDisk } from '../../tools/faultdisk.js'
import { cyclesOr, Ordeal } from '../../tools/ordeal.js'
import { seed } from '../../tools/seed.js'
import { type Scenario, strike, strikeOf, TROUBLES } from '../../tools/strike.js'

/** Enough for every counter at the end to have moved. */
const USUAL = 12
const CYCLES = cyclesOr(USUAL)
const COLUMNS = ['c1', 'c2', 'c3', 'c4'] as const
const CONF = 'log_level = info\ncomponent_timeout = 1\nresync_checkpoint_seconds = 1\n'

const TIMEOUT_MS = 120_000 + CYCLES * 30_000
t.setTimeout(TIMEOUT_MS)

const SCENARIOS: readonly Scenario[] = [
  // The write hole is here: a kill, and then a column less.
  { name: 'nothing fails', tell: [] },
  { name: 'nothing fails', tell: [] },
  { name: 'nothing fails', tell: [] },
  ...TROUBLES,
  { name: 'bad sectors', tell: ['DISK fail read ENODATA from=262144 bytes=4096 until-written'] },
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
    const what = strikeOf(cycle, scenario, disk, kill, power)
    await strike(rig, COLUMNS, { what, scenario, disk, kill, power, seconds: 2, killWithin: 1200 })
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
  if (CYCLES >= USUAL) t.ok(evictions > 0 && rig.cutOff > 0, 'columns were evicted and requests were cut off')
})

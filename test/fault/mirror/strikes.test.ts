/**
 * A mirror whose disks fail, hang and lose power while clients write, and whose metad is killed (promises P1 to P4),
 * again and again.
 *
 * At most one side misbehaves at a time; what it does is one of SCENARIOS. Half of the cycles end with SIGKILL,
 * some of those with the power of all disks: unsynced sectors are then lost or kept by chance. After a cycle
 * without such trouble the other side may be lost before the restart.
 */
import t from 'tap'
import { missingFaultDisk } from '../../tools/faultdisk.js'
import { cyclesOr, Ordeal } from '../../tools/ordeal.js'
import { seed } from '../../tools/seed.js'
import { type Scenario, strike, strikeOf, TROUBLES } from '../../tools/strike.js'

/** Enough for every counter at the end to have moved. */
const USUAL = 16
const CYCLES = cyclesOr(USUAL)
/** Component files of the two sides: a stripe of two and a single file. */
const SIDES = [['a1', 'a2'], ['b1']] as const
const CONF = 'log_level = info\ncomponent_timeout = 1\nregion_clean_seconds = 1\nresync_checkpoint_seconds = 1\n'

const TIMEOUT_MS = 120_000 + CYCLES * 30_000
t.setTimeout(TIMEOUT_MS)

const SCENARIOS: readonly Scenario[] = [
  { name: 'nothing fails', tell: [] },
  ...TROUBLES,
  { name: 'the disk is full', tell: ['DISK fail write ENOSPC'] },
  { name: 'bad sectors', tell: ['DISK fail read ENODATA from=65536 bytes=4096 until-written'] },
  { name: 'a read hangs', tell: ['DISK hang read count=1'] },
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
    const what = strikeOf(cycle, scenario, disk, kill, power)
    await strike(rig, all, { what, scenario, disk, kill, power, seconds: 3, killWithin: 1500 })
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
  if (CYCLES >= USUAL) t.ok(evictions > 0 && rig.cutOff > 0, 'disks were evicted and requests were cut off')
})

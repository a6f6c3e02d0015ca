/**
 * metad is killed while a mirror is copied, once or several times in a row, at any instant and right after a
 * commit (of a checkpoint, of dirty regions, of the end), with clients that write.
 *
 * What is copied holds junk before: a block that is read from it too early, or is never copied, is found.
 */
import t from 'tap'
import { sleep } from '../../../bench/lib/process.js'
import { missingFaultDisk } from '../../tools/faultdisk.js'
import { brokenOf, cyclesOr, isInStep, Ordeal } from '../../tools/ordeal.js'
import { seed } from '../../tools/seed.js'

const CYCLES = cyclesOr(6)
const DISKS_OF = { d1: ['a1', 'a2'], d2: ['b1'] } as const
const SIDES = ['d1', 'd2'] as const
/** A whole copy takes three seconds. */
const CONF =
  'component_timeout = 5\nregion_clean_seconds = 1\nresync_checkpoint_seconds = 1\n' +
  'resync_bytes_per_second = 3145728\nresync_buffer_blocks = 64\n'

const TIMEOUT_MS = 120_000 + CYCLES * 40_000
t.setTimeout(TIMEOUT_MS)

/** Each leaves a copy under way and says what of. */
const KINDS = {
  'a whole side': async (rig: Ordeal): Promise<string> => {
    const side = rig.dice.pick(SIDES)
    await rig.run('metadetach', 'd0', side)
    for (const disk of DISKS_OF[side]) rig.scribble(disk)
    await rig.run('metattach', 'd0', side)
    return side
  },
  'a component': async (rig: Ordeal): Promise<string> => {
    const disk = rig.dice.pick(DISKS_OF[rig.dice.pick(SIDES)])
    rig.disks.tell(`${disk} fail write EIO`)
    const strike = await rig.load(30)
    await rig.eventually(`${disk} is in Maintenance`, (report) => brokenOf(report).length > 0)
    rig.disks.tell(`${disk} ok`)
    rig.scribble(disk)
    await rig.run('metareplace', '-e', 'd0', rig.disks.path(disk))
    await rig.kill()
    await rig.unharmed(disk, strike)
    await rig.restart()
    return disk
  },
  'what was written while it was offline': async (rig: Ordeal): Promise<string> => {
    const side = rig.dice.pick(SIDES)
    await rig.run('metaoffline', 'd0', side)
    await rig.unharmed(side, await rig.load(0.5))
    await rig.run('metaonline', 'd0', side)
    return side
  },
  'what was dirty at a kill': async (rig: Ordeal): Promise<string> => {
    const strike = await rig.load(60)
    await sleep(rig.dice.below(500))
    await rig.kill()
    await rig.unharmed('written', strike)
    await rig.restart()
    return 'd0'
  },
} as const satisfies Readonly<Record<string, (rig: Ordeal) => Promise<string>>>

type Kind = keyof typeof KINDS
const NAMES = Object.keys(KINDS) as readonly Kind[]

t.test(`${CYCLES} copies, SEED=${seed}`, { skip: missingFaultDisk(), timeout: TIMEOUT_MS }, async (t) => {
  const rig = await Ordeal.mirror(t, CONF)
  const { dice } = rig
  let kills = 0
  let during = 0

  for (let cycle = 1; cycle <= CYCLES; cycle++) {
    const name = dice.pick(NAMES)
    const of = await KINDS[name](rig)
    for (let strikes = 1 + dice.below(3); strikes > 0; strikes--) {
      const strike = await rig.load(60)
      if (!isInStep(await rig.stat())) during++
      await sleep(dice.below(1500))
      // What is recorded later on is mostly checkpoints, one a second.
      if (dice.chance(50)) await rig.commit(1500)
      await rig.kill()
      kills++
      const what = `cycle ${cycle}: ${name} (${of}), kill ${kills}`
      await rig.unharmed(what, strike)
      await rig.restart()
      await rig.sound(what, ['--settle'])
    }
    await rig.inStep()
    await rig.sound(`cycle ${cycle}: in step`)
    await rig.sidesEqual(`cycle ${cycle}`)
  }
  t.comment(`${kills} kills, ${during} of them during a copy, ${rig.cutOff} requests met one`)
  t.ok(during > 0 && rig.cutOff > 0, 'copies and requests were cut off')
})

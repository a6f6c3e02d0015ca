/**
 * metad is killed while a RAID5 device is zeroed, while a column is made from the others, while columns join and while
 * parity is compared, once or several times in a row, at any instant and right after a commit, with clients that write.
 *
 * What comes to a column holds junk before: a block that is read from it too early, or is never made, is found, by
 * clients or by the parity of the lines, which is looked at behind metad's back.
 */
import t from 'tap'
import { sleep } from '../../../bench/lib/process.js'
import { missingFaultDisk } from '../../tools/faultdisk.js'
import { brokenOf, columnsOf, cyclesOr, isInStep, Ordeal, raid5Of } from '../../tools/ordeal.js'
import { seed } from '../../tools/seed.js'

const CYCLES = cyclesOr(7)
const COLUMNS = 4
/** A column takes two seconds. */
const CONF =
  'component_timeout = 5\nresync_checkpoint_seconds = 1\nresync_bytes_per_second = 4718592\nresync_buffer_blocks = 64\n'

const TIMEOUT_MS = 120_000 + CYCLES * 40_000
t.setTimeout(TIMEOUT_MS)

interface Work {
  readonly what: string
  /** Clients are let in meanwhile. */
  readonly served: boolean
}

const devicesIn = async (rig: Ordeal): Promise<readonly string[]> => {
  const unit = raid5Of(await rig.stat())
  return unit === undefined ? [] : columnsOf(unit).map((c) => rig.diskNamed(c.device))
}

/** A disk that is none of them, full of junk. */
const freeDisk = async (rig: Ordeal): Promise<string> => {
  const used = await devicesIn(rig)
  const free = ['c1', 'c2', 'c3', 'c4', 'x1', 'x2'].filter((d) => !used.includes(d))
  const disk = rig.dice.pick(free)
  rig.scribble(disk)
  return disk
}

/** Every write to one column fails, until it is out. @returns the disk */
const evict = async (rig: Ordeal): Promise<string> => {
  const disk = rig.dice.pick(await devicesIn(rig))
  const strike = await rig.load(30)
  rig.disks.tell(`${disk} fail write EIO`)
  await rig.eventually(`${disk} is out`, (report) => brokenOf(report).length > 0 || !isInStep(report))
  rig.disks.tell(`${disk} ok`)
  await rig.kill()
  await rig.unharmed(disk, strike)
  await rig.restart()
  await rig.sound(`without ${disk}`, ['--settle'], false)
  return disk
}

/** Each leaves work under way and says what. */
const KINDS = {
  'a column that failed': async (rig: Ordeal): Promise<Work> => {
    const disk = await evict(rig)
    rig.scribble(disk)
    await rig.run('metareplace', '-e', 'd0', rig.disks.path(disk))
    return { what: disk, served: true }
  },
  'another disk for a column': async (rig: Ordeal): Promise<Work> => {
    const old = rig.dice.pick(await devicesIn(rig))
    const disk = await freeDisk(rig)
    await rig.run('metareplace', 'd0', rig.disks.path(old), rig.disks.path(disk))
    return { what: `${disk} for ${old}`, served: true }
  },
  'a hot spare': async (rig: Ordeal): Promise<Work> => {
    const report = await rig.stat()
    if (raid5Of(report)?.hotSparePool === null) await rig.run('metaparam', '-h', 'hsp001', 'd0')
    rig.scribble('s1')
    return { what: `s1 for ${await evict(rig)}`, served: true }
  },
  'the disk that a spare stood in for': async (rig: Ordeal): Promise<Work> => {
    if (raid5Of(await rig.stat())?.hotSparePool === null) await rig.run('metaparam', '-h', 'hsp001', 'd0')
    rig.scribble('s1')
    const disk = await evict(rig)
    await rig.inStep()
    rig.scribble(disk)
    await rig.run('metareplace', '-e', 'd0', rig.disks.path(disk))
    return { what: disk, served: true }
  },
  parity: async (rig: Ordeal): Promise<Work> => {
    await rig.run('metasync', '-p', 'd0')
    return { what: 'all of it', served: true }
  },
  'one more column': async (rig: Ordeal): Promise<Work> => {
    const disk = await freeDisk(rig)
    await rig.run('metattach', 'd0', rig.disks.path(disk))
    return { what: disk, served: true }
  },
  zeroes: async (rig: Ordeal): Promise<Work> => {
    await rig.run('metaclear', 'd0')
    const disks = Array.from({ length: COLUMNS }, (_, i) => `c${i + 1}`)
    for (const disk of disks) rig.scribble(disk)
    await rig.run('metainit', 'd0', '-r', ...disks.map((d) => rig.disks.path(d)), '-i', '16k')
    return { what: 'all of it', served: false }
  },
} as const satisfies Readonly<Record<string, (rig: Ordeal) => Promise<Work>>>

/** What stood in is free again, and no pool gives another one. */
const withoutSpares = async (rig: Ordeal): Promise<void> => {
  const unit = raid5Of(await rig.stat())
  if (unit === undefined || unit.hotSparePool === null) return
  for (const c of columnsOf(unit)) {
    if (c.hotSpare === null) continue
    await rig.run('metareplace', '-e', 'd0', c.device)
    await rig.inStep()
  }
  await rig.run('metaparam', '-h', 'none', 'd0')
}

type Kind = keyof typeof KINDS
const NAMES = Object.keys(KINDS) as readonly Kind[]

t.test(`${CYCLES} kinds of work, SEED=${seed}`, { skip: missingFaultDisk(), timeout: TIMEOUT_MS }, async (t) => {
  const rig = await Ordeal.raid5(t, CONF, COLUMNS, { x1: 8, x2: 8, s1: 9 })
  await rig.run('metainit', 'hsp001', rig.disks.path('s1'))
  const { dice } = rig
  let kills = 0
  let during = 0

  for (let cycle = 1; cycle <= CYCLES; cycle++) {
    const name = NAMES[(cycle - 1) % NAMES.length] ?? 'parity'
    const { what, served } = await KINDS[name](rig)
    for (let strikes = 1 + dice.below(2); strikes > 0; strikes--) {
      const strike = served ? await rig.load(60) : null
      if (!isInStep(await rig.stat())) during++
      await sleep(dice.below(1500))
      // What is recorded later on is mostly checkpoints, one a second.
      if (dice.chance(50)) await rig.commit(1500)
      await rig.kill()
      kills++
      const told = `cycle ${cycle}: ${name} (${what}), kill ${kills}`
      if (strike !== null) await rig.unharmed(told, strike)
      await rig.restart()
      if (served) await rig.sound(told, ['--settle'], false)
    }
    await rig.inStep()
    if (!served) await rig.refill()
    await rig.sound(`cycle ${cycle}: in step`)
    await rig.parityRight(`cycle ${cycle}: ${name}`, false)
    await withoutSpares(rig)
  }
  await rig.columnsHold()
  t.comment(`${kills} kills, ${during} of them during such work, ${rig.cutOff} requests met one`)
  t.ok(during > 0 && rig.cutOff > 0, 'work and requests were cut off')
})

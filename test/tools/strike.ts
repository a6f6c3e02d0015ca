/** One blow at the disks of an Ordeal while clients write: a disk in trouble, then perhaps SIGKILL and the power of all. */
import { sleep, until } from '../../bench/lib/process.js'
import type { Ordeal } from './ordeal.js'

export interface Scenario {
  readonly name: string
  /** Words for faultdisk; DISK is the one in trouble. */
  readonly tell: readonly string[]
}

/** What disks of every kind of metadevice do. */
export const TROUBLES: readonly Scenario[] = [
  { name: 'every write fails', tell: ['DISK fail write EIO'] },
  { name: 'one write fails', tell: ['DISK fail write EIO count=1'] },
  { name: 'a sync fails', tell: ['DISK fail sync EIO count=1'] },
  { name: 'every read fails', tell: ['DISK fail read EIO'] },
  { name: 'reads come short', tell: ['DISK short read'] },
  { name: 'writes come short', tell: ['DISK short write'] },
  { name: 'everything fails', tell: ['DISK fail all EIO'] },
  { name: 'a write hangs', tell: ['DISK hang write count=1'] },
  { name: 'a sync hangs', tell: ['DISK hang sync count=1'] },
  { name: 'everything hangs', tell: ['DISK hang all'] },
]

export interface Strike {
  readonly what: string
  readonly scenario: Scenario
  readonly disk: string
  readonly kill: boolean
  /** Unsynced sectors of all disks are lost or kept by chance; only after a kill. */
  readonly power: boolean
  /** Of a load that no kill ends. */
  readonly seconds: number
  /** A kill comes within so many milliseconds of the trouble. */
  readonly killWithin: number
}

export const strikeOf = (cycle: number, scenario: Scenario, disk: string, kill: boolean, power: boolean): string =>
  `cycle ${cycle}: ${scenario.name} on ${disk}${kill ? ', kill' : ''}${power ? ', power cut' : ''}`

/** Afterwards all disks are well; metad is dead after a kill. */
export const strike = async (rig: Ordeal, all: readonly string[], s: Strike): Promise<void> => {
  const { disks, dice } = rig
  for (const d of all) disks.tell(`${d} volatile ${s.power ? 'on' : 'off'}`)
  const load = await rig.load(s.kill ? 60 : s.seconds)
  await sleep(dice.below(200))
  for (const word of s.scenario.tell) disks.tell(word.replace('DISK', s.disk))
  if (s.kill) await sleep(dice.below(s.killWithin))
  else await rig.unharmed(s.what, load)
  // Whoever waits for a disk that hangs may not die before it answers.
  const dying = s.kill ? rig.kill() : Promise.resolve()
  for (const d of all) disks.tell(`${d} ok`)
  await dying
  if (s.kill) await rig.unharmed(s.what, load)
  // What hung has reached the disk by now; none of it comes after the cut.
  await until('no request hangs', () => all.every((d) => disks.counters(d).held === 0))
  if (!s.power) return
  for (const d of all) {
    disks.tell(`${d} powercut ${dice.below(1 << 30)}`)
    disks.tell(`${d} ok`)
  }
}

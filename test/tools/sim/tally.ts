/** What has happened in a simulation, so that a test knows that it has. */
import { ownComponents } from '../../../src/meta/tree.js'
import type { Tree } from '../../../src/meta/types.js'

export interface Tally {
  events: number
  kills: number
  powerLosses: number
  stops: number
  /** Devices with which nothing was wrong when metad stopped. */
  stopsJudged: number
  faults: number
  /** Disks that hung. */
  hangs: number
  evictions: number
  lastErred: number
  spared: number
  brokenSpares: number
  grown: number
  doubled: number
  remade: number
  /** Columns of RAID5 devices that were made from the others. */
  regenerated: number
  /** Columns that were zeroed. */
  initialised: number
  verified: number
  corrupted: number
  answered: number
  errors: number
  commits: number
  /** Commands that were carried out. */
  done: number
  refused: number
}

export const newTally = (): Tally => ({
  events: 0,
  kills: 0,
  powerLosses: 0,
  stops: 0,
  stopsJudged: 0,
  faults: 0,
  hangs: 0,
  evictions: 0,
  lastErred: 0,
  spared: 0,
  brokenSpares: 0,
  grown: 0,
  doubled: 0,
  remade: 0,
  regenerated: 0,
  initialised: 0,
  verified: 0,
  corrupted: 0,
  answered: 0,
  errors: 0,
  commits: 0,
  done: 0,
  refused: 0,
})

/** What a tree has that the one before had not. */
export class TreeCounter {
  readonly #tally: Tally
  /** Component states, spares and sizes as they were. */
  readonly #known = new Map<string, string>()

  constructor(tally: Tally) {
    this.#tally = tally
  }

  /** What has come about since the last look. */
  count(tree: Tree): void {
    const news = (key: string, value: string): boolean => {
      const old = this.#known.get(key)
      this.#known.set(key, value)
      return old !== undefined && old !== value
    }
    for (const u of tree.values()) {
      if (u.kind === 'mirror') {
        if (news(`size ${u.name}`, String(u.blocks))) this.#tally.grown++
        if (news(`region ${u.name}`, String(u.regionBlocks))) this.#tally.doubled++
      } else if (u.kind === 'pool') {
        for (const s of u.spares) if (news(`spare ${s.name}`, String(s.broken)) && s.broken) this.#tally.brokenSpares++
      } else {
        if (u.kind === 'raid5' && news(`size ${u.name}`, String(u.blocks))) this.#tally.grown++
        for (const [i, c] of ownComponents(u).entries()) {
          if (news(`standing ${u.name} ${i}`, c.spare === null ? '' : c.name) && c.spare !== null) this.#tally.spared++
          const was = this.#known.get(`state ${u.name} ${i}`)
          if (!news(`state ${u.name} ${i}`, c.state)) continue
          if (u.kind === 'raid5' && was === 'resync' && c.state === 'okay') this.#tally.regenerated++
          if (was === 'init' && c.state === 'okay') this.#tally.initialised++
          if (c.state === 'erred') this.#tally.evictions++
          if (c.state === 'lastErred') this.#tally.lastErred++
        }
      }
    }
  }
}

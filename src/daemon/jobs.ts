/** One scheduler, a host for each kind that has background work: each is asked about its own metadevices only. */
import type { Blocks } from '../base/units.js'
import type { ResyncTarget } from '../meta/mirrorstate.js'
import type { Raid5Target } from '../meta/raid5jobs.js'
import type { Kind, UnitName } from '../meta/types.js'
import type { End, Ending, Job, ResyncHost, Target, Work } from '../resync/scheduler.js'

const RAID5: Readonly<Record<Raid5Target['kind'], true>> = {
  initialise: true,
  regenerate: true,
  copy: true,
  parity: true,
}
const ofRaid5 = (t: Target): t is Raid5Target => t.kind in RAID5
const ofMirror = (t: Target): t is ResyncTarget => !ofRaid5(t)
const narrowed = <T extends Target>(job: Job, is: (t: Target) => t is T): Job<T> | null =>
  is(job.target) ? { ...job, target: job.target } : null

export class JobHosts implements ResyncHost {
  readonly #mirrors: ResyncHost<ResyncTarget>
  readonly #raid5: ResyncHost<Raid5Target>
  readonly #kindOf: (unit: UnitName) => Kind | undefined

  constructor(
    mirrors: ResyncHost<ResyncTarget>,
    raid5: ResyncHost<Raid5Target>,
    kindOf: (unit: UnitName) => Kind | undefined,
  ) {
    this.#mirrors = mirrors
    this.#raid5 = raid5
    this.#kindOf = kindOf
  }

  next(unit: UnitName, tried: readonly Target[]): Promise<Job | undefined> {
    return this.#kindOf(unit) === 'raid5'
      ? this.#raid5.next(unit, tried.filter(ofRaid5))
      : this.#mirrors.next(unit, tried.filter(ofMirror))
  }

  async ended(unit: UnitName, job: Job, end: End, ending: Ending): Promise<void> {
    const column = narrowed(job, ofRaid5)
    if (column !== null) return this.#raid5.ended(unit, column, end, ending)
    const side = narrowed(job, ofMirror)
    if (side !== null) return this.#mirrors.ended(unit, side, end, ending)
  }

  checkpoint(unit: UnitName, job: Job, done: Blocks): void {
    const column = narrowed(job, ofRaid5)
    if (column !== null) return this.#raid5.checkpoint(unit, column, done)
    const side = narrowed(job, ofMirror)
    if (side !== null) this.#mirrors.checkpoint(unit, side, done)
  }

  start(unit: UnitName, work: Work, number: number, from: Blocks): boolean {
    if (work.kind === 'verify') return this.#of(unit).start(unit, work, number, from)
    const column = narrowed(work.job, ofRaid5)
    if (column !== null) return this.#raid5.start(unit, { kind: 'copy', job: column }, number, from)
    const side = narrowed(work.job, ofMirror)
    return side !== null && this.#mirrors.start(unit, { kind: 'copy', job: side }, number, from)
  }

  cancel(unit: UnitName): void {
    this.#of(unit).cancel(unit)
  }
  broke(unit: UnitName, e: unknown): void {
    this.#of(unit).broke(unit, e)
  }
  rested(unit: UnitName): void {
    this.#of(unit).rested(unit)
  }

  #of(unit: UnitName): Pick<ResyncHost, 'cancel' | 'broke' | 'rested'> & {
    start(unit: UnitName, work: Extract<Work, { kind: 'verify' }>, number: number, from: Blocks): boolean
  } {
    return this.#kindOf(unit) === 'raid5' ? this.#raid5 : this.#mirrors
  }
}

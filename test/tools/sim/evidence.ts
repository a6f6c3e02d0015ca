/**
 * What the engine has told metad since it started: nothing that happened to a component or a job may be on record
 * that was never told. Errors are kept by storage, since a component gets another number when it comes back.
 */
import type { Raid5Job } from '../../../src/dataplane/types.js'
import type { Member, UnitName } from '../../../src/meta/types.js'
import type { NativeEvent } from '../../../src/plan/events.js'
import type { ComponentId } from '../../../src/plan/types.js'
import type { SimComponents } from './components.js'

interface Work {
  readonly unit: UnitName | undefined
  readonly job: Raid5Job
  /** What it writes. */
  readonly targets: readonly ComponentId[]
}

const ETIMEDOUT = 110

export class Evidence {
  readonly #components: SimComponents
  readonly #readLimit: number
  /** Paths of components with an error that is believed at once. */
  readonly #hard = new Set<string>()
  /** Paths of components with a read error that nothing made up for. */
  readonly #unread = new Set<string>()
  readonly #reads = new Map<ComponentId, number>()
  readonly #running = new Map<number, Work>()
  #finished: Work[] = []

  constructor(components: SimComponents, readLimit: number) {
    this.#components = components
    this.#readLimit = readLimit
  }

  event(e: NativeEvent): void {
    if (e.kind === 'resyncEnded') {
      const work = this.#running.get(e.job)
      this.#running.delete(e.job)
      if (work !== undefined && e.outcome === 'done') this.#finished.push(work)
    }
    if (e.kind !== 'componentError') return
    const path = this.#components.nameOf(e.component)
    if (e.op !== 'read' || e.repairFailed || e.errno === ETIMEDOUT) this.#hard.add(path)
    else if (!e.masked) this.#unread.add(path)
    if (e.op === 'read') this.#reads.set(e.component, (this.#reads.get(e.component) ?? 0) + 1)
  }

  begun(work: Work): void {
    this.#running.set(work.job.job, work)
  }

  /** @param alone a read error that nothing made up for counts as well */
  mayFail(c: Member, alone: boolean): boolean {
    const often = [...this.#reads].some(([id, n]) => n > this.#readLimit && this.#components.nameOf(id) === c.path)
    return often || this.#hard.has(c.path) || (alone && this.#unread.has(c.path)) || this.#components.wasAway(c)
  }

  /** Whether such a job came to its end, with this target; it serves as evidence once. */
  made(kind: Raid5Job['kind'], unit: UnitName, target: Member | null): boolean {
    const fits = (w: Work): boolean =>
      w.unit === unit &&
      w.job.kind === kind &&
      (target === null ? w.job.repair : w.targets.some((id) => this.#components.nameOf(id) === target.path))
    const found = this.#finished.find(fits)
    // One initialisation is for several columns.
    if (kind !== 'initialise') this.#finished = this.#finished.filter((w) => w !== found)
    return found !== undefined
  }

  /** What was made before counts no longer. */
  forget(kind: Raid5Job['kind'], unit: UnitName): void {
    this.#finished = this.#finished.filter((w) => w.unit !== unit || w.job.kind !== kind)
  }
}

/**
 * A simulated state database over simulated replicas, with the counting rules of src/db/quorum.ts.
 * Replicas outlive the process; a commit that was under way when it died is on some of them.
 */
import { err, ok } from '../../../src/base/result.js'
import { choose, commitHolds } from '../../../src/db/quorum.js'
import type { DatabaseHealth, Durable, Json, RecordChanges, StateDatabase } from '../../../src/db/types.js'
import { type MetaResult, metaError } from '../../../src/msg/errors.js'
import type { Schedule } from './schedule.js'

export interface SimReplica {
  readonly id: string
  epoch: number
  term: number
  records: ReadonlyMap<string, Json>
  /** Takes no writes, and cannot be read at a start. */
  broken: boolean
}

export const makeSimReplicas = (n: number): SimReplica[] =>
  Array.from({ length: n }, (_, i) => ({ id: `r${i}`, epoch: 0, term: 0, records: new Map(), broken: false }))

interface Commit {
  readonly epoch: number
  readonly records: ReadonlyMap<string, Json>
  readonly holders: Set<string>
  outstanding: number
  readonly done: (r: MetaResult<Durable>) => void
}

export class SimDatabase implements StateDatabase {
  health: DatabaseHealth = 'good'
  epoch: number
  records: ReadonlyMap<string, Json>
  /** Committed by this process. */
  commits = 0
  readonly #replicas: readonly SimReplica[]
  readonly #schedule: Schedule
  readonly #changed: (health: DatabaseHealth) => void
  readonly #term: number
  #last: Promise<unknown> = Promise.resolve()
  /** A killed process commits nothing more. */
  #dead = false

  /** @returns undefined when too few replicas can be read for anything to be changed */
  static start(
    replicas: readonly SimReplica[],
    schedule: Schedule,
    changed: (health: DatabaseHealth) => void,
  ): SimDatabase | undefined {
    const readable = replicas.filter((r) => !r.broken)
    const list = replicas.map((r) => r.id)
    const choice = choose(
      readable.map((r) => ({
        id: r.id,
        version: { term: r.term, epoch: r.epoch },
        copied: false,
        list,
        previous: null,
      })),
    )
    if (choice?.health !== 'good') return undefined
    const newest = readable.find((r) => r.term === choice.version.term && r.epoch === choice.version.epoch)
    if (newest === undefined) throw new Error('the chosen version is nowhere')
    const term = Math.max(...replicas.map((r) => r.term)) + 1
    const { epoch, records } = newest
    for (const r of readable) Object.assign(r, { epoch: epoch + 1, term, records })
    return new SimDatabase(replicas, schedule, changed, term, epoch + 1, records)
  }

  private constructor(
    replicas: readonly SimReplica[],
    schedule: Schedule,
    changed: (health: DatabaseHealth) => void,
    term: number,
    epoch: number,
    records: ReadonlyMap<string, Json>,
  ) {
    this.#replicas = replicas
    this.#schedule = schedule
    this.#changed = changed
    this.#term = term
    this.epoch = epoch
    this.records = records
  }

  commit(changes: RecordChanges): Promise<MetaResult<Durable>> {
    const run = this.#last.then(() => this.#commit(changes))
    this.#last = run
    return run
  }

  #commit(changes: RecordChanges): Promise<MetaResult<Durable>> {
    if (this.health !== 'good') return Promise.resolve(err(metaError('stale')))
    const records = new Map(this.records)
    for (const [name, value] of changes) {
      if (value === null) records.delete(name)
      else records.set(name, value)
    }
    return new Promise((done) => {
      const commit: Commit = {
        epoch: ++this.epoch,
        records,
        holders: new Set(),
        outstanding: this.#replicas.length,
        done,
      }
      for (const replica of this.#replicas) this.#schedule.later(() => this.#write(replica, commit))
    })
  }

  #write(replica: SimReplica, commit: Commit): void {
    if (this.#dead) return
    if (!replica.broken) {
      Object.assign(replica, { epoch: commit.epoch, term: this.#term, records: commit.records })
      commit.holders.add(replica.id)
    }
    if (--commit.outstanding > 0) return
    const lists = { list: this.#replicas.map((r) => r.id), previous: null }
    if (!commitHolds(lists, commit.holders)) {
      this.health = 'stale'
      commit.done(err(metaError('commitFailed')))
      this.#changed('stale')
      return
    }
    this.commits++
    this.records = commit.records
    commit.done(ok({ epoch: commit.epoch } as Durable))
  }

  kill(): void {
    this.#dead = true
  }

  add(): Promise<MetaResult<void>> {
    return Promise.reject(new Error('the simulation has its replicas'))
  }
  delete(): Promise<MetaResult<void>> {
    return Promise.reject(new Error('the simulation has its replicas'))
  }
  status(): Promise<readonly never[]> {
    return Promise.resolve([])
  }
  places(): readonly string[] {
    return []
  }
  writeLocations(): Promise<MetaResult<void>> {
    return Promise.resolve(ok(undefined))
  }
  close(): Promise<void> {
    return Promise.resolve()
  }
}

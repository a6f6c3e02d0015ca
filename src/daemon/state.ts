/**
 * The tree of metadevices as the state database holds it. Invariants:
 * - the tree in memory is the tree of the last durable commit; a failed commit changes nothing;
 * - changes are made one at a time and are decided on the tree of that moment, so nobody decides on a
 *   picture that a fault has overtaken; what takes time (opening, examining, installing) stays outside,
 *   because a failed write waits for its turn here;
 * - the dirty region logs follow the mirrors, and hot spares what they stand in for, in the same commit.
 */
import { ok } from '../base/result.js'
import { type LogShapes, RegionLogs } from '../db/regions.js'
import type { RecordChanges, StateDatabase } from '../db/types.js'
import { settleSpares } from '../meta/hotspare.js'
import type { Outcome } from '../meta/operations.js'
import { readTree, recordChanges } from '../meta/records.js'
import { regionCount } from '../meta/regions.js'
import { EMPTY_TREE } from '../meta/tree.js'
import type { Tree, UnitName } from '../meta/types.js'
import type { MetaError, MetaResult } from '../msg/errors.js'
import { Writer } from './writer.js'

export interface Applied<T> {
  readonly before: Tree
  readonly after: Tree
  readonly value: T
}

export interface AlsoCommitted {
  /** Other records. */
  readonly records?: RecordChanges
  /** Mirrors whose new log begins dirty. */
  readonly suspect?: ReadonlySet<UnitName>
}

/** A mirror of one side has no other side to differ from. */
const logShapes = (tree: Tree): LogShapes =>
  new Map(
    [...tree.values()].flatMap((u) =>
      u.kind === 'mirror' && u.submirrors.length > 1
        ? [[u.name, { regionBlocks: u.regionBlocks, regions: regionCount(u.blocks, u.regionBlocks) }]]
        : [],
    ),
  )

export class State {
  readonly logs: RegionLogs
  readonly #db: Pick<StateDatabase, 'commit' | 'records'>
  readonly #turns = new Writer()
  #tree: Tree = EMPTY_TREE

  constructor(db: Pick<StateDatabase, 'commit' | 'records'>) {
    this.#db = db
    this.logs = new RegionLogs(db)
  }

  get tree(): Tree {
    return this.#tree
  }

  /** Everything remembered; what cannot be read is left out and named. */
  load(): readonly MetaError[] {
    const { tree, errors } = readTree(this.#db.records)
    this.#tree = tree
    return [...errors, ...this.logs.load(logShapes(tree))]
  }

  /** Runs while nothing changes. `job` must be quick. */
  still<T>(job: () => T): Promise<T> {
    return this.#turns.run(() => Promise.resolve(job()))
  }

  /**
   * Decides on the tree of this moment, commits, and then it is the tree. `decide` is pure, and may have been
   * asked before. An outcome that changes nothing is not committed.
   */
  change<T extends { readonly outcome: Outcome }>(
    decide: (tree: Tree) => MetaResult<T>,
    also: AlsoCommitted = {},
  ): Promise<MetaResult<Applied<T>>> {
    return this.#turns.run(async () => {
      const before = this.#tree
      const decided = decide(before)
      if (!decided.ok) return decided
      const { value } = decided
      const outcome = settleSpares(before, value.outcome, Date.now())
      const after = outcome.tree
      const reshape = await this.logs.follow(logShapes(after), also.suspect)
      const changes = new Map([...recordChanges(outcome), ...reshape.changes, ...(also.records ?? [])])
      if (changes.size === 0) {
        reshape.settle(true)
        return ok({ before, after: before, value })
      }
      let durable = false
      try {
        const committed = await this.#db.commit(changes)
        durable = committed.ok
        if (!committed.ok) return committed
      } finally {
        reshape.settle(durable)
      }
      this.#tree = after
      return ok({ before, after, value })
    })
  }

  /** change() for operations that have nothing else to say. */
  async perform(operation: (tree: Tree) => MetaResult<Outcome>): Promise<MetaResult<Applied<Outcome>>> {
    const done = await this.change((tree) => {
      const result = operation(tree)
      return result.ok ? ok({ outcome: result.value }) : result
    })
    return done.ok ? ok({ ...done.value, value: done.value.value.outcome }) : done
  }

  /** Resolves when everything queued so far has ended. */
  idle(): Promise<void> {
    return this.#turns.idle()
  }
}

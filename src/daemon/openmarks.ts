/**
 * Which mirrors may have unequal sides because someone can write to them. A mark is durable before
 * the first client's first request and is taken away after the last one's data is flushed; a mark
 * that is there at start means that metad ended in between (docs/commit-order.md).
 */
import { ok } from '../base/result.js'
import type { StateDatabase } from '../db/types.js'
import type { UnitName } from '../meta/types.js'
import type { MetaResult } from '../msg/errors.js'

const PREFIX = 'open/'
export const openKey = (name: UnitName): string => `${PREFIX}${name}`

export class OpenMarks {
  readonly #db: StateDatabase
  readonly #marked = new Set<UnitName>()

  constructor(db: StateDatabase) {
    this.#db = db
  }

  /** Marks left by a metad that did not stop in order. */
  load(): ReadonlySet<UnitName> {
    for (const key of this.#db.records.keys())
      if (key.startsWith(PREFIX)) this.#marked.add(key.slice(PREFIX.length) as UnitName)
    return new Set(this.#marked)
  }

  forget(names: ReadonlySet<UnitName>): void {
    for (const name of names) this.#marked.delete(name)
  }

  has(name: UnitName): boolean {
    return this.#marked.has(name)
  }
  names(): readonly UnitName[] {
    return [...this.#marked]
  }

  async set(name: UnitName): Promise<MetaResult<void>> {
    if (this.#marked.has(name)) return ok(undefined)
    const committed = await this.#db.commit(new Map([[openKey(name), true]]))
    if (!committed.ok) return committed
    this.#marked.add(name)
    return ok(undefined)
  }

  async clear(name: UnitName): Promise<MetaResult<void>> {
    const committed = await this.#db.commit(new Map([[openKey(name), null]]))
    if (!committed.ok) return committed
    this.#marked.delete(name)
    return ok(undefined)
  }
}

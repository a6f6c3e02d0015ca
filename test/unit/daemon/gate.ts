/** A state database whose commits wait until a test lets them through or makes them fail. */
import { setImmediate as turn } from 'node:timers/promises'
import { err, ok } from '../../../src/base/result.js'
import type { Durable, Json, RecordChanges } from '../../../src/db/types.js'
import { recordChanges } from '../../../src/meta/records.js'
import type { Tree } from '../../../src/meta/types.js'
import { type MetaResult, metaError } from '../../../src/msg/errors.js'

export const settled = async (): Promise<void> => {
  for (let i = 0; i < 10; i++) await turn()
}

export class Gate {
  readonly records = new Map<string, Json>()
  readonly waiting: { readonly changes: RecordChanges; readonly answer: (r: MetaResult<Durable>) => void }[] = []

  /** With the records of `tree`. */
  static of(tree: Tree): Gate {
    const gate = new Gate()
    for (const [key, value] of recordChanges({ put: [...tree.values()], remove: [] }))
      if (value !== null) gate.records.set(key, value)
    return gate
  }

  commit(changes: RecordChanges): Promise<MetaResult<Durable>> {
    return new Promise((answer) => this.waiting.push({ changes, answer }))
  }

  /** @returns the keys of the commit that was waiting longest */
  async let(durable: boolean): Promise<readonly string[]> {
    await settled()
    const next = this.waiting.shift()
    if (next === undefined) throw new Error('nothing is committed')
    if (durable)
      for (const [key, value] of next.changes) {
        if (value === null) this.records.delete(key)
        else this.records.set(key, value)
      }
    next.answer(durable ? ok({ epoch: 1 } as Durable) : err(metaError('commitFailed')))
    await settled()
    return [...next.changes.keys()]
  }
}

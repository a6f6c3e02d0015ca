/**
 * Nothing is on record of a component that the engine never told: it fails by an error that counts (for a single bad
 * block another place of the data is enough), it is in step by a job that came to its end, and so is parity.
 */
import { ownComponents } from '../../../src/meta/tree.js'
import type { Member, Raid5Unit, Tree, Unit } from '../../../src/meta/types.js'
import type { Evidence } from './evidence.js'
import type { World } from './world.js'

const isOut = (c: Member): boolean => c.state === 'erred' || c.state === 'lastErred'

export class ToldChecks {
  readonly #world: World
  #tree: Tree | null = null

  constructor(world: World) {
    this.#world = world
  }

  /** A new process: what was before is no longer compared with. */
  restarted(): void {
    this.#tree = null
  }

  step(): void {
    const { tree } = this.#world
    const before = this.#tree
    this.#tree = tree
    if (before === null || before === tree) return
    for (const u of tree.values()) {
      const was = before.get(u.name)
      if (was === undefined || was === u || was.kind !== u.kind) continue
      this.#spares(was, u, tree)
      if (u.kind === 'stripe') this.#failures(was, u, () => true)
      // One that is gone and made again has another journal.
      if (u.kind !== 'raid5' || was.kind !== 'raid5' || was.journal.unit !== u.journal.unit) continue
      this.#failures(was, u, (i) => was.columns.slice(0, was.serving).every((o, j) => j === i || o.state === 'okay'))
      this.#columns(was, u)
      this.#parity(was, u)
    }
  }

  get #evidence(): Evidence {
    return this.#world.process.evidence
  }

  /** @param alone whether everything else was in step, so that a bad block may cost this one */
  #failures(before: Unit, u: Unit, alone: (index: number) => boolean): void {
    if (u.kind === 'pool' || before.kind === 'pool') return
    const all = ownComponents(u)
    for (const [i, was] of ownComponents(before).entries()) {
      const c = all[i]
      if (was.state !== 'okay' || c === undefined || !isOut(c) || c.identity !== was.identity) continue
      if (!this.#evidence.mayFail(was, alone(i)))
        this.#world.broken(`${u.name}: ${c.name} is ${c.state}, and nothing that was told is a reason`)
    }
  }

  /** A spare that failed is known as Broken from then on. */
  #spares(before: Unit, u: Unit, tree: Tree): void {
    if (u.kind === 'pool' || before.kind === 'pool') return
    const all = ownComponents(u)
    for (const [i, was] of ownComponents(before).entries()) {
      const c = all[i]
      if (was.spare === null || c === undefined || (c.spare !== null && c.name === was.name)) continue
      if (was.state !== 'lastErred' && c.state !== 'erred') continue
      for (const p of tree.values())
        if (p.kind === 'pool' && p.spares.some((s) => s.name === was.name && !s.broken))
          this.#world.broken(`${was.name} failed in ${u.name} and is not Broken in ${p.name}`)
    }
  }

  #columns(before: Raid5Unit, u: Raid5Unit): void {
    for (const [i, c] of u.columns.entries()) {
      const was = before.columns[i]
      if (was === undefined || c.state !== 'okay') continue
      const copied = was.state === 'okay' && was.identity !== c.identity
      const kind = copied ? 'copy' : was.state === 'init' ? 'initialise' : was.state === 'resync' ? 'regenerate' : null
      if (kind !== null && !this.#evidence.made(kind, u.name, c))
        this.#world.broken(`${u.name}: ${c.name} was ${was.state} and is in step, and no ${kind} came to its end`)
    }
  }

  #parity(before: Raid5Unit, u: Raid5Unit): void {
    if (u.regen && !before.regen) this.#evidence.forget('parity', u.name)
    const made = u.columns.some((c, i) => c.state === 'okay' && before.columns[i]?.state === 'resync')
    if (before.regen && !u.regen && !made && !this.#evidence.made('parity', u.name, null))
      this.#world.broken(`${u.name}: parity is not wanted any more, and nothing made it`)
  }
}

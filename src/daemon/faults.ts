/**
 * Errors of components: collected per metadevice, decided, committed, shown to the engine, and only then are
 * the requests that wait for it settled (docs/commit-order.md, "errors"). Invariants:
 * - a hold is settled exactly once, and resumed only after a durable decision whose plan is installed;
 * - errors that come during a decision are the next one's; a metadevice has one decision under way.
 */
import { type DecideContext, type Decision, decide, type Failure } from '../meta/decide.js'
import { membersOf } from '../meta/raid5tables.js'
import { ALL_OPENABLE, hasOtherSource, sidesIn, stripeComponents } from '../meta/sources.js'
import { metadeviceOf, stripesOf } from '../meta/tree.js'
import type { Member, Slot, Tree, UnitName } from '../meta/types.js'
import { errorText } from '../msg/errors.js'
import { notice as noticeOf } from '../msg/notices.js'
import type { DataPlane } from '../dataplane/types.js'
import type { NativeEvent } from '../plan/events.js'
import type { Components } from './components.js'
import type { Config } from './config.js'
import type { Logger, Notice } from './log.js'
import type { Metadevices } from './metadevices.js'
import type { Serving } from './serving.js'
import type { State } from './state.js'

type ComponentError = Extract<NativeEvent, { kind: 'componentError' }>
type Repaired = Extract<NativeEvent, { kind: 'componentRepaired' }>
type Held = Extract<NativeEvent, { kind: 'held' }>

export interface FaultParts {
  readonly config: Pick<Config, 'componentReadErrors'>
  readonly state: State
  readonly engine: Pick<DataPlane, 'settle'>
  readonly metadevices: Pick<Metadevices, 'nameOf' | 'generationOf'>
  readonly components: Pick<Components, 'nameOf' | 'isOf' | 'countReadError'>
  readonly serving: Pick<Serving, 'show'>
  readonly log: Pick<Logger, 'debug' | 'error'>
  readonly notice: Notice
  /** A decision was carried out: what the mirror needs now may have changed. */
  readonly decided: (name: UnitName) => void
}

interface Case {
  readonly device: number
  failures: Report[]
  hold: { readonly number: number; readonly generation: number } | undefined
  working: Promise<void> | undefined
}

interface Report {
  readonly event: ComponentError
  readonly readErrors: number
}

/** One line a second for a component and operation: a dead disk has a thousand errors to tell. */
const SAY_EVERY_MS = 1000
const ETIMEDOUT = 110
const NOTICE_OF = {
  mirror: { read: 'readError', write: 'writeError' },
  raid5: { read: 'raid5ReadError', write: 'raid5WriteError' },
} as const

export class Faults {
  readonly #parts: FaultParts
  readonly #cases = new Map<number, Case>()
  readonly #said = new Map<string, number>()

  constructor(parts: FaultParts) {
    this.#parts = parts
  }

  event(e: ComponentError | Repaired | Held): void {
    switch (e.kind) {
      case 'componentError':
        return this.#failed(e)
      case 'componentRepaired':
        return this.#repaired(e)
      case 'held':
        this.#case(e.device).hold = { number: e.hold, generation: e.generation }
        this.#work(e.device)
    }
  }

  /** What waits on `device` is answered with an error, because nothing will be decided any more. */
  giveUp(device: number): void {
    const at = this.#cases.get(device)
    if (at?.hold === undefined) return
    this.#parts.engine.settle(device, at.hold.number, 'fail')
    at.hold = undefined
  }

  giveUpAll(): void {
    for (const device of this.#cases.keys()) this.giveUp(device)
  }

  /** Resolves when nothing that was reported waits for a decision. */
  async idle(): Promise<void> {
    for (;;) {
      const working = [...this.#cases.values()].flatMap((c) => c.working ?? [])
      if (working.length === 0) return
      await Promise.all(working)
    }
  }

  #case(device: number): Case {
    const at = this.#cases.get(device) ?? { device, failures: [], hold: undefined, working: undefined }
    this.#cases.set(device, at)
    return at
  }

  #failed(e: ComponentError): void {
    this.#say(e)
    const readErrors = e.op === 'read' ? this.#parts.components.countReadError(e.component) : 0
    this.#case(e.device).failures.push({ event: e, readErrors })
    this.#work(e.device)
  }

  #say(e: ComponentError): void {
    this.#parts.log.debug({ event: e }, 'component error')
    if (!this.#due(`${e.component} ${e.op}`)) return
    const { metadevices, state } = this.#parts
    const name = metadevices.nameOf(e.device)
    const ofRaid5 = name !== undefined && state.tree.get(name)?.kind === 'raid5'
    const code = NOTICE_OF[ofRaid5 ? 'raid5' : 'mirror'][e.op === 'read' ? 'read' : 'write']
    const { level, text } = noticeOf(code, ...this.#where(e))
    this.#parts.notice(level, text)
  }

  /** Nothing to decide: the block is on every side again. */
  #repaired(e: Repaired): void {
    this.#parts.log.debug({ event: e }, 'component repaired')
    if (!this.#due(`${e.component} repaired`)) return
    const { level, text } = noticeOf('readRepaired', ...this.#where(e), String(e.blocks), String(e.block))
    this.#parts.notice(level, text)
  }

  #due(key: string): boolean {
    const now = Date.now()
    if (now - (this.#said.get(key) ?? -Infinity) < SAY_EVERY_MS) return false
    for (const [old, at] of this.#said) if (now - at >= SAY_EVERY_MS) this.#said.delete(old)
    this.#said.set(key, now)
    return true
  }

  /** The submirror or stripe, and the component, as messages name them. */
  #where(e: ComponentError | Repaired): readonly [string, string] {
    const { components, metadevices, state } = this.#parts
    const unit = this.#find(e, state.tree)?.unit ?? metadevices.nameOf(e.device) ?? `device ${e.device}`
    return [unit, components.nameOf(e.component)]
  }

  #work(device: number): void {
    const at = this.#case(device)
    at.working ??= this.#decideAll(at)
      .catch((e: unknown) => {
        this.#parts.log.error(e, 'decision failed')
        this.giveUp(device)
      })
      .finally(() => {
        at.working = undefined
        if (at.failures.length > 0 || at.hold !== undefined) this.#work(device)
        else this.#cases.delete(device)
      })
  }

  async #decideAll(at: Case): Promise<void> {
    const { state, engine, metadevices, serving, notice, log } = this.#parts
    // What the drain that brought the first error still has to tell belongs to the same decision.
    await Promise.resolve()
    while (at.failures.length > 0 || at.hold !== undefined) {
      const reports = at.failures
      at.failures = []
      const { hold } = at
      const name = metadevices.nameOf(at.device)
      if (name === undefined) {
        this.giveUp(at.device)
        return
      }
      const done = await state.change<Decision>((tree) => ({
        ok: true,
        value: decide(tree, name, this.#failures(reports, name, tree), this.#context()),
      }))
      if (!done.ok) {
        log.error({ metadevice: name }, `component state not recorded: ${errorText(done.error)}`)
        this.giveUp(at.device)
        continue
      }
      const { value, before, after } = done.value
      for (const n of value.notices) notice(n.level, n.text)
      const swapped = await serving.show(name)
      // Given up meanwhile, or already the next one's.
      if (hold !== undefined && at.hold === hold) {
        // Nothing changed since these requests failed: they would fail the same way for ever.
        const same = before === after && !swapped && metadevices.generationOf(name) === hold.generation
        engine.settle(at.device, hold.number, same ? 'fail' : value.verdict)
        at.hold = undefined
      }
      if (before !== after) this.#parts.decided(name)
    }
  }

  #context(): DecideContext {
    return { now: Date.now(), readErrorLimit: this.#parts.config.componentReadErrors }
  }

  #failures(reports: readonly Report[], name: UnitName, tree: Tree): readonly Failure[] {
    return reports.flatMap(({ event: e, readErrors }) => {
      const place = this.#find(e, tree)
      if (place === null) return []
      // A disk that hangs is believed at once. Blocks that are bad on every side cost those blocks, not a disk.
      const hangs = e.errno === ETIMEDOUT
      const masked = e.masked || (e.op === 'read' && this.#elsewhere(name, place, tree))
      const { unit, component } = place
      return [
        { unit, component, op: e.op, masked, repairFailed: e.repairFailed, readErrors: hangs ? Infinity : readErrors },
      ]
    })
  }

  #elsewhere(name: UnitName, place: { readonly slot: Slot; readonly component: number }, tree: Tree): boolean {
    const m = tree.get(name)
    return m?.kind === 'mirror' && hasOtherSource(m.blocks, sidesIn(m, tree), place, ALL_OPENABLE)
  }

  /** The component of the metadevice that an event is about; one disk may be several of them. */
  #find(
    e: ComponentError | Repaired,
    tree: Tree,
  ): { readonly unit: UnitName; readonly component: number; readonly slot: Slot } | null {
    const { metadevices, components } = this.#parts
    const name = metadevices.nameOf(e.device)
    const top = name === undefined ? null : metadeviceOf(tree, name)
    if (top === null) return null
    const indexIn = (members: readonly Member[]): number =>
      members.findIndex(
        (c) =>
          components.isOf(e.component, c) &&
          ((e.kind === 'componentError' && e.op === 'flush') || (e.block >= c.offset && e.block < c.offset + c.size)),
      )
    if (top.kind === 'raid5') {
      const component = indexIn(membersOf(top))
      return component < 0 ? null : { unit: top.name, component, slot: 0 }
    }
    for (const stripe of stripesOf(top, tree)) {
      const slot = top.kind === 'mirror' ? (top.submirrors.find((s) => s.unit === stripe.name)?.slot ?? 0) : 0
      const component = indexIn(stripeComponents(stripe))
      if (component >= 0) return { unit: stripe.name, component, slot }
    }
    return null
  }
}

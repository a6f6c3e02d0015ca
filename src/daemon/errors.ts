/** Component errors in md(7D)'s words, at most one line a second for a component and operation. */
import { usedComponents } from '../meta/tree.js'
import type { Tree } from '../meta/types.js'
import type { NativeEvent } from '../plan/events.js'
import type { Components } from './components.js'
import type { Notice } from './log.js'

type ComponentError = Extract<NativeEvent, { kind: 'componentError' }>

const EVERY_MS = 1000

export class ComponentErrors {
  readonly #notice: Notice
  readonly #components: Components
  readonly #said = new Map<string, number>()

  constructor(notice: Notice, components: Components) {
    this.#notice = notice
    this.#components = components
  }

  report(e: ComponentError, tree: Tree, now: number = Date.now()): void {
    const key = `${e.component} ${e.op}`
    if (now - (this.#said.get(key) ?? -Infinity) < EVERY_MS) return
    this.#said.set(key, now)
    const name = this.#components.nameOf(e.component)
    const unit = usedComponents(tree).find((u) => u.component.name === name)?.unit ?? 'unknown'
    const what = e.op === 'read' ? 'read' : 'write'
    this.#notice('warning', `md: ${unit}: ${what} error on ${name}`)
  }
}

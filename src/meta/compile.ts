/** Unit and what is below it as a plan for the engine. */
import { PlanBuilder } from '../plan/builder.js'
import type { ComponentId, NodeId, Plan } from '../plan/types.js'
import { deviceKindOf } from './kinds.js'
import type { Component, Metadevice, Tree } from './types.js'

export interface CompileOptions {
  readonly generation: number
  readonly readOnly: boolean
  /** The number under which the component is open; means nothing for one in Maintenance, which need not be. */
  readonly component: (c: Component) => ComponentId
}

/** The tree must be sound (readTree and the operations make no other): a broken one is a bug and throws. */
export const compilePlan = (unit: Metadevice, tree: Tree, options: CompileOptions): Plan => {
  const to = new PlanBuilder()
  const child = (u: Metadevice): NodeId =>
    deviceKindOf(u.kind).compile(u, { tree, to, component: options.component, child })
  child(unit)
  return to.finish({ generation: options.generation, labelled: unit.labelled, readOnly: options.readOnly })
}

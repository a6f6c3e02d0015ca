/** Unit and what is below it as a plan for the engine. */
import { PlanBuilder } from '../plan/builder.js'
import type { ComponentId, NodeId, Plan } from '../plan/types.js'
import { deviceKindOf } from './kinds.js'
import type { Member, Metadevice, Tree } from './types.js'

export interface CompileOptions {
  readonly generation: number
  readonly readOnly: boolean
  /** The number under which the component is open; means nothing for one in Maintenance, which need not be. */
  readonly component: (c: Member) => ComponentId
  /** See CompileContext; false when absent. */
  readonly replay?: boolean
}

/** The first component's label is a block of the metadevice; never of a RAID5 device, whose columns begin behind theirs. */
const isLabelled = (unit: Metadevice): boolean => unit.kind !== 'raid5' && unit.labelled

/** The tree must be sound (readTree and the operations make no other): a broken one is a bug and throws. */
export const compilePlan = (unit: Metadevice, tree: Tree, options: CompileOptions): Plan => {
  const to = new PlanBuilder()
  const child = (u: Metadevice): NodeId =>
    deviceKindOf(u.kind).compile(u, { tree, to, component: options.component, child, replay: options.replay ?? false })
  child(unit)
  return to.finish({ generation: options.generation, labelled: isLabelled(unit), readOnly: options.readOnly })
}

/** Which disks may answer a read of a simulated mirror. */
import type { ComponentId, ComponentNode, MirrorSide, Plan } from '../../../src/plan/types.js'
import type { SimDisk } from './disks.js'
import { mirrorOf, placeOf } from './layout.js'
import type { Dice } from './schedule.js'

export interface Source {
  readonly node: ComponentNode
  readonly disk: SimDisk
  readonly cell: number
}

/**
 * Best first: okay components of sides in step there (any of them, as the read policies choose), Last
 * Erred ones, the one that erred last first, and what may only differ in writes that a crash interrupted.
 */
export const sourcesOf = (
  plan: Plan,
  cell: number,
  cellBlocks: number,
  isStale: (side: MirrorSide) => boolean,
  disk: (component: ComponentId) => SimDisk,
  dice: Dice,
): readonly Source[] => {
  const classes: Source[][] = [[], [], []]
  for (const side of mirrorOf(plan).sides) {
    const { node, cell: at } = placeOf(plan, side, cell, cellBlocks)
    if (!side.readable || !node.readable) continue
    const rank = isStale(side) ? 2 : node.lastErred > 0 ? 1 : 0
    classes[rank]?.push({ node, disk: disk(node.component), cell: at })
  }
  const [okay = [], lastErred = [], stale = []] = classes
  const first = okay.length > 1 ? dice.below(okay.length) : 0
  lastErred.sort((a, b) => b.node.lastErred - a.node.lastErred)
  return [...okay.slice(first), ...okay.slice(0, first), ...lastErred, ...stale]
}

/**
 * Where a cell of a metadevice lies, by the rules of concatenations and stripes; one cell is never cut. A cell is
 * the unit of requests and comparisons; of a large one only the beginning is ever used.
 */
import type { ComponentNode, MirrorNode, MirrorSide, Plan, PlanNode } from '../../../src/plan/types.js'

export interface Place {
  readonly node: ComponentNode
  /** Cell of the disk. */
  readonly cell: number
}

const nodeAt = (plan: Plan, id: number): PlanNode => {
  const node = plan.nodes[id]
  if (node === undefined) throw new Error(`no node ${id}`)
  return node
}

const whole = (blocks: number, cellBlocks: number): number => {
  if (blocks % cellBlocks !== 0) throw new Error(`${blocks} blocks are no cells: choose other sizes for a simulation`)
  return blocks / cellBlocks
}

const placeIn = (plan: Plan, node: PlanNode, cell: number, cellBlocks: number): Place => {
  switch (node.kind) {
    case 'component':
      return { node, cell: whole(node.start, cellBlocks) + cell }
    case 'stripe': {
      let at = cell
      for (const row of node.rows) {
        const cells = whole(row.blocks, cellBlocks)
        if (at >= cells) {
          at -= cells
          continue
        }
        const [only] = row.children
        if (row.children.length === 1 && only !== undefined) return placeIn(plan, nodeAt(plan, only), at, cellBlocks)
        const interlace = whole(row.interlace, cellBlocks)
        const chunk = Math.floor(at / interlace)
        const child = nodeAt(plan, row.children[chunk % row.children.length] ?? -1)
        const inside = Math.floor(chunk / row.children.length) * interlace + (at % interlace)
        return placeIn(plan, child, inside, cellBlocks)
      }
      throw new Error(`cell ${cell} is past the end`)
    }
    case 'mirror':
    case 'raid5':
      throw new Error(`a ${node.kind} is not part of another metadevice`)
  }
}

export const mirrorOf = (plan: Plan): MirrorNode => {
  const root = plan.nodes.at(-1)
  if (root?.kind !== 'mirror') throw new Error('no mirror')
  return root
}

export const placeOf = (plan: Plan, side: MirrorSide, cell: number, cellBlocks: number): Place =>
  placeIn(plan, nodeAt(plan, side.child), cell, cellBlocks)

/** Regions of cells, each by its first block. */
export const regionsOf = (
  first: number,
  count: number,
  cellBlocks: number,
  regionBlocks: number,
): readonly number[] => [
  ...new Set(Array.from({ length: count }, (_, i) => Math.floor(((first + i) * cellBlocks) / regionBlocks))),
]

const componentsIn = (plan: Plan, node: PlanNode): readonly ComponentNode[] => {
  if (node.kind === 'component') return [node]
  if (node.kind === 'raid5') return node.columns.flatMap((c) => componentsIn(plan, nodeAt(plan, c)))
  const children = node.kind === 'stripe' ? node.rows.flatMap((r) => r.children) : node.sides.map((s) => s.child)
  return children.flatMap((c) => componentsIn(plan, nodeAt(plan, c)))
}
export const componentsOfSide = (plan: Plan, side: MirrorSide): readonly ComponentNode[] =>
  componentsIn(plan, nodeAt(plan, side.child))

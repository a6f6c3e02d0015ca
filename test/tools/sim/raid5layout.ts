/** Where the cells of a simulated RAID5 device lie: a segment is a cell, so a line is one cell of every column. */
import type { ComponentNode, Plan, Raid5Node } from '../../../src/plan/types.js'

export interface Raid5Shape {
  readonly lines: number
  readonly originals: number
  readonly serving: number
}

export interface LinePlace {
  readonly line: number
  readonly column: number
}

export const raid5Of = (plan: Plan): Raid5Node => {
  const root = plan.nodes.at(-1)
  if (root?.kind !== 'raid5') throw new Error('no RAID5 device')
  return root
}

export const columnsOf = (plan: Plan): readonly ComponentNode[] =>
  raid5Of(plan).columns.map((id) => {
    const node = plan.nodes[id]
    if (node?.kind !== 'component') throw new Error('a column is no component')
    return node
  })

export const cellsIn = ({ lines, serving }: Raid5Shape): number => lines * (serving - 1)

/** By the rules of driver.md 4.3, counted and not calculated. */
export const lineOf = ({ lines, originals }: Raid5Shape, cell: number): LinePlace => {
  const data = originals - 1
  if (cell >= data * lines) {
    const behind = cell - data * lines
    return { line: behind % lines, column: originals + Math.floor(behind / lines) }
  }
  const line = Math.floor(cell / data)
  return { line, column: ((cell % data) + line) % originals }
}

export const parityOf = ({ originals }: Raid5Shape, line: number): number => (line + originals - 1) % originals

/** The cell whose data is there; null: parity. */
export const cellAt = (shape: Raid5Shape, line: number, column: number): number | null => {
  const { lines, originals } = shape
  if (column >= originals) return (originals - 1) * lines + (column - originals) * lines + line
  const within = (((column - line) % originals) + originals) % originals
  return within === originals - 1 ? null : line * (originals - 1) + within
}

export const xor = (values: readonly number[]): number => values.reduce((a, b) => a ^ b, 0)

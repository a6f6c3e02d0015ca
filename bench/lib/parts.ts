/** A measurement made in parts, each with all contenders of its workloads, so that rounds can be added up. */
import type { Cell, Pace } from './measure.js'

export interface Measured {
  readonly pace: Pace
  /** As git names it; says so when the tree had changes. */
  readonly commit: string
  readonly cells: readonly Cell[]
}

const keyOf = (c: Cell): string => `${c.section}\0${c.workload}\0${c.contender}`

/** @throws when the parts are of different commits or were measured differently */
export const added = (parts: readonly Measured[]): Measured => {
  const [first] = parts
  if (first === undefined) throw new Error('nothing to report')
  const cells = new Map<string, Cell>()
  for (const part of parts) {
    if (part.commit !== first.commit) throw new Error(`parts of two commits: ${first.commit} and ${part.commit}`)
    if (part.pace.seconds !== first.pace.seconds) throw new Error('parts with runs of different lengths')
    for (const cell of part.cells) {
      const before = cells.get(keyOf(cell))
      cells.set(keyOf(cell), before === undefined ? cell : { ...cell, runs: [...before.runs, ...cell.runs] })
    }
  }
  const rounds = Math.min(...[...cells.values()].map((c) => c.runs.length))
  return { pace: { ...first.pace, rounds }, commit: first.commit, cells: [...cells.values()] }
}

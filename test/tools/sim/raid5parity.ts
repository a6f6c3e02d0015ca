/**
 * Parity that is wrong is found, and made right when asked for. Until it is, a column that is lost would take data
 * with it, so nothing fails meanwhile, and in the end parity is right whatever became of the comparison.
 */
import type { UnitName } from '../../../src/meta/types.js'
import type { Verified } from '../../../src/resync/scheduler.js'
import type { SimDisk } from './disks.js'
import { lineOf, parityOf, xor } from './raid5layout.js'
import type { World } from './world.js'

export type Comparison = 'verify' | 'repair' | 'remake-parity'

interface Cell {
  readonly line: number
  readonly disk: SimDisk
  readonly cell: number
}

const cellsOf = (world: World, name: UnitName, line: number): readonly Cell[] => {
  const core = world.engineRaid5(name)?.core
  return core === undefined ? [] : core.columns.map((_, i) => ({ line, disk: core.disk(i), cell: core.place(i, line) }))
}
const sumOf = (cells: readonly Cell[]): number => xor(cells.map((c) => c.disk.peek(c.cell)))

/** Lines whose parity is wrong from now on. */
const corrupt = (world: World, name: UnitName, value: () => number): readonly number[] => {
  const { dice } = world.schedule
  const core = world.engineRaid5(name)?.core
  const groups = world.engineRaid5(name)?.groups
  if (core === undefined || groups === undefined) return []
  const lines = new Set(Array.from({ length: 1 + dice.below(4) }, () => dice.below(core.node.lines)))
  // A change on its way would take the wrong parity along, into the journal.
  const dirty = new Set([...core.dirty.keys()].map((cell) => lineOf(core.node, cell).line))
  const free = [...lines].filter((l) => groups.isFree(l) && !core.claimed.has(l) && !dirty.has(l))
  for (const line of free) {
    const at = cellsOf(world, name, line)[parityOf(core.node, line)]
    at?.disk.corrupt(at.cell, at.disk.peek(at.cell) ^ value())
    world.tell(`${name} line ${line}: parity spoiled`)
  }
  return free
}

const judge = (world: World, name: UnitName, lines: readonly number[], how: Comparison, v: Verified | null): void => {
  const { cellBlocks } = world.setup
  for (const line of lines) {
    // Written over meanwhile: parity may have been made of all data.
    const right = sumOf(cellsOf(world, name, line)) === 0
    const told =
      v === null || v.ranges.some((r) => r.block <= line * cellBlocks && line * cellBlocks < r.block + r.blocks)
    if (!right && how !== 'verify') world.broken(`${name} line ${line}: parity is wrong after the repair`)
    if (!right && !told) world.broken(`${name} line ${line}: parity is wrong, and the comparison did not find it`)
  }
}

/** @param finish lets things happen until something is done. @returns whether it came to its end. */
export const compareParity = async (
  world: World,
  name: UnitName,
  how: Comparison,
  value: () => number,
  finish: <T>(work: Promise<T>) => Promise<T>,
  command: (words: readonly string[]) => Promise<string>,
): Promise<boolean> => {
  const before = world.raid5(name)
  const lines = corrupt(world, name, value)
  world.spoiled.set(name, new Set(lines))
  let v: Verified | null = null
  let ended: boolean
  if (how === 'remake-parity') {
    ended = (await command(['parity', name])) === 'ok'
    await finish(world.system.resyncs.kick(name))
    ended &&= world.raid5(name)?.regen === false
  } else {
    const verifying = world.system.resyncs.verify(name, how === 'repair')
    v = verifying === null ? null : await finish(verifying)
    ended = v?.ending === 'done' && world.raid5(name) === before
  }
  if (ended) judge(world, name, lines, how, v)
  for (const line of lines) {
    const cells = cellsOf(world, name, line)
    const at = cells[parityOf(world.raid5(name) ?? { originals: 0, lines: 0, serving: 0 }, line)]
    const sum = sumOf(cells)
    if (at !== undefined && sum !== 0) at.disk.corrupt(at.cell, at.disk.peek(at.cell) ^ sum)
  }
  world.spoiled.delete(name)
  return ended
}

/**
 * Whether storage may become a component (commands.md 2.10). Names prove nothing: two devices are the
 * same storage when their identities are equal and their extents overlap, whatever links, loops or
 * mounts lie between. What the tree recorded is compared by what its names mean now when the
 * inventory knows them, because device numbers may change over a restart.
 */
import { err, ok } from '../base/result.js'
import { type MetaError, type MetaResult, metaError } from '../msg/errors.js'
import { fitsTab, isMetadevicePath, isUnitName, parseUnitName } from './names.js'
import { metadeviceOf, type UsedSlice, usedSlices } from './tree.js'
import type { Device, Extent, Inventory, Tree, UnitName } from './types.js'

interface Storage {
  readonly identity: string
  readonly extent: Extent
}

const intersects = (a: Storage, b: Storage): boolean =>
  a.identity === b.identity &&
  a.extent.first < b.extent.first + b.extent.blocks &&
  b.extent.first < a.extent.first + a.extent.blocks

const sameExtent = (a: Storage, b: Storage): boolean =>
  a.extent.first === b.extent.first && a.extent.blocks === b.extent.blocks

/** `unit` is the metadevice in which `used` stands. */
const conflict = (d: Device, used: Storage & { readonly name: string }, unit: UnitName): MetaError | null => {
  if (!intersects(d, used)) return null
  // A file that was extended since it was configured is still the same file.
  if (d.name === used.name || sameExtent(d, used)) return metaError('appearsTwice', d.name, unit)
  return metaError('overlaps', d.name, unit)
}

/** What a component word means; nothing is checked but that it is no metadevice. */
export const lookUp = (word: string, unit: UnitName, tree: Tree, inventory: Inventory): MetaResult<Device> => {
  // A metadevice of that name wins over a file of that name in the current directory.
  if (isMetadevicePath(word) || (isUnitName(word) && metadeviceOf(tree, word) !== null)) {
    const name = parseUnitName(word)
    if (!name.ok) return name
    return err(metaError(metadeviceOf(tree, name.value) !== null ? 'isMetadevice' : 'unitNotFound', name.value))
  }
  const d = inventory(word)
  if (d.ok && !fitsTab(d.value.name)) return err(metaError('syntax', `${unit}: "${d.value.name}"`))
  return d
}

/** What the kernel or the state database does with it, as an error; null when nothing. */
export const useOf = (d: Device): MetaError | null => {
  if (d.isReplica) return metaError('hasReplica', d.name)
  if (d.usedBy === null) return null
  const { how, where, device } = d.usedBy
  switch (how) {
    case 'mounted':
      return device === undefined
        ? metaError('mountedOn', d.name, where)
        : metaError('overlapsMounted', d.name, device, where)
    case 'swap':
      return device === undefined ? metaError('swappedOn', d.name) : metaError('overlapsSwap', d.name, device)
    case 'busy':
      return metaError('sys', d.name, 'Device or resource busy')
    case 'replica':
      return metaError('overlaps', d.name, where)
  }
}

/** Mounts and swap may be forced, as in SVM (commands.md 2.10). */
const usable = (d: Device, force: boolean): MetaError | null => {
  const how = d.isReplica ? undefined : d.usedBy?.how
  return force && (how === 'mounted' || how === 'swap') ? null : useOf(d)
}

/** What the inventory of a command should know: its own words and what is in use already. */
export const lookUpWords = (words: readonly string[], tree: Tree): readonly string[] => [
  ...words,
  ...usedSlices(tree).map((u) => u.slice.name),
]

interface CheckContext {
  readonly tree: Tree
  readonly inventory: Inventory
}

/** Looks up and checks what `unit` is to get, in order; the first problem is the answer. */
const check = (
  unit: UnitName,
  words: readonly string[],
  { tree, inventory }: CheckContext,
  rules: { readonly force: boolean; readonly mayShare: (used: UsedSlice, d: Device) => boolean },
): MetaResult<readonly Device[]> => {
  const used = usedSlices(tree).map((u) => {
    const now = inventory(u.slice.name)
    const { identity, extent } = now.ok ? now.value : u.slice
    return { ...u, storage: { identity, extent, name: u.slice.name } }
  })
  const found: Device[] = []
  for (const word of words) {
    const device = lookUp(word, unit, tree, inventory)
    if (!device.ok) return device
    const d = device.value
    const problem =
      used.map((u) => (rules.mayShare(u, d) ? null : conflict(d, u.storage, u.unit))).find((e) => e !== null) ??
      found.map((other) => conflict(d, other, unit)).find((e) => e !== null) ??
      usable(d, rules.force)
    if (problem !== null && problem !== undefined) return err(problem)
    found.push(d)
  }
  return ok(found)
}

export const checkComponents = (
  unit: UnitName,
  words: readonly string[],
  context: CheckContext & { readonly force: boolean },
): MetaResult<readonly Device[]> => check(unit, words, context, { force: context.force, mayShare: () => false })

/** What a component's own storage is: found again, it conflicts with nothing. */
export interface OwnSlice {
  readonly unit: UnitName
  readonly name: string
  /** metad has it open, so that the kernel calls it busy. */
  readonly held: boolean
}
/** What takes the place of a component; `own`: it is that component's own storage. */
export const checkReplacement = (
  unit: UnitName,
  word: string,
  own: OwnSlice | null,
  { tree, inventory }: CheckContext,
): MetaResult<Device> => {
  const idle: Inventory = (w) => {
    const d = inventory(w)
    return own?.held === true && d.ok && d.value.usedBy?.how === 'busy' ? ok({ ...d.value, usedBy: null }) : d
  }
  const mayShare = (used: UsedSlice): boolean => own !== null && used.unit === own.unit && used.slice.name === own.name
  const found = check(unit, [word], { tree, inventory: idle }, { force: false, mayShare })
  if (!found.ok) return found
  const [device] = found.value
  return device === undefined ? err(metaError('notADisk', word)) : ok(device)
}

/** A spare may be in several pools, under one name; a spare that is mounted is never forced. */
export const checkSpares = (
  pool: UnitName,
  words: readonly string[],
  context: CheckContext,
): MetaResult<readonly Device[]> =>
  check(pool, words, context, { force: false, mayShare: (used, d) => used.spare && used.slice.name === d.name })

/** What metastat shows, from the tree and what runs now. Texts are those of commands.md 4. */
import { type MetaError, metaError } from '../msg/errors.js'
import type { RelocationReport, StatReport } from '../msg/report.js'
import type { LiveStatus } from './kind.js'
import { kindOf } from './kinds.js'
import { driveOf, parseUnitName } from './names.js'
import { componentsOf, poolsOf, statOrder, topLevel } from './tree.js'
import type { Slice, Tree, Unit } from './types.js'

/** One line per drive, in the order in which metastat meets them. */
const relocation = (units: readonly Unit[], tree: Tree, live: LiveStatus): readonly RelocationReport[] => {
  const drives = new Map<string, RelocationReport>()
  const slices = units.flatMap((u): readonly Slice[] =>
    u.kind === 'pool'
      ? u.spares
      : componentsOf(u, tree).flatMap((c) => (c.spare === null ? [c] : [c.spare.original, c])),
  )
  for (const c of slices) {
    const device = driveOf(c.name)
    const id = live.deviceId(c)
    if (!drives.has(device)) drives.set(device, { device, relocatable: id !== null, id })
  }
  return [...drives.values()]
}

export interface Status {
  readonly report: StatReport
  /** One per name that is not set up; the others are shown all the same. */
  readonly errors: readonly MetaError[]
}

/** @param names as typed; none means every metadevice at the top and every pool. */
export const statusOf = (
  tree: Tree,
  live: LiveStatus,
  options: { readonly stale: boolean; readonly names: readonly string[] },
): Status => {
  const errors: MetaError[] = []
  const shown = options.names.flatMap((word) => {
    const name = parseUnitName(word)
    const unit = name.ok ? tree.get(name.value) : undefined
    if (unit !== undefined) return [unit]
    errors.push(name.ok ? metaError('unitNotSetUp', name.value) : name.error)
    return []
  })
  const show = options.names.length === 0 ? [...topLevel(tree), ...poolsOf(tree)] : shown
  return {
    report: {
      stale: options.stale,
      units: statOrder(tree).map((u) => kindOf(u.kind).report(u, tree, live)),
      show: show.map((u) => u.name),
      relocation: relocation(show, tree, live),
    },
    errors,
  }
}

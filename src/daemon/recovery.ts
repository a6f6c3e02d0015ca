/** What a start finds after a stop that was not one; pure. */
import { outcome, type Outcome, unchanged } from '../meta/operations.js'
import type { Metadevice, MirrorUnit, Submirror, Tree, UnitName } from '../meta/types.js'

/**
 * Mirrors that were open when metad ended: their sides hold every flushed block but may differ in
 * blocks that were being written. The first side in step stays the source, the others are copied
 * again. Pass 0 says: never resync at start (commands.md 2.4).
 */
export const recovered = (tree: Tree, dirty: ReadonlySet<UnitName>): Outcome => {
  const put: MirrorUnit[] = []
  for (const name of dirty) {
    const m = tree.get(name)
    if (m?.kind !== 'mirror' || m.pass === 0) continue
    const source = m.submirrors.find((s) => s.state === 'okay')
    const submirrors = m.submirrors.map((s): Submirror =>
      s.state === 'okay' && s !== source ? { ...s, state: 'resync' } : s,
    )
    if (submirrors.some((s, i) => s !== m.submirrors[i])) put.push({ ...m, submirrors })
  }
  return put.length === 0 ? unchanged(tree) : outcome(tree, { put })
}

/** The mirror without the submirrors that cannot be served; anything else as it is. */
export function inServiceOf(unit: MirrorUnit, canServe: (s: Submirror) => boolean): MirrorUnit
export function inServiceOf(unit: Metadevice, canServe: (s: Submirror) => boolean): Metadevice
export function inServiceOf(unit: Metadevice, canServe: (s: Submirror) => boolean): Metadevice {
  if (unit.kind !== 'mirror' || unit.submirrors.every(canServe)) return unit
  return { ...unit, submirrors: unit.submirrors.filter(canServe) }
}

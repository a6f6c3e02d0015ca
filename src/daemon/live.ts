/** What runs now, as the pure operations and the status want to see it. */
import type { Live, LiveStatus } from '../meta/kind.js'
import { columnData } from '../meta/raid5geometry.js'
import { metadeviceOf, parentOf } from '../meta/tree.js'
import type { Member, UnitName } from '../meta/types.js'
import { overlap, type Piece } from '../sys/storage.js'
import { inService } from './inservice.js'
import type { System } from './system.js'

/** A submirror is held open by its mirror. */
const topOf = (system: System, name: UnitName): UnitName => parentOf(system.tree, name)?.name ?? name

const isMissing = (system: System, c: Member): boolean =>
  c.state !== 'erred' && c.state !== 'initErred' && system.serving.isMissing(c)

/** A stripe of which nothing can be opened, a mirror that is not served. */
const isUnavailable = (system: System, name: UnitName): boolean => {
  const unit = metadeviceOf(system.tree, name)
  if (unit === null) return false
  if (unit.kind === 'mirror' || parentOf(system.tree, name) === null) return system.serving.unserved(name) !== undefined
  const needed = inService(unit, system.tree)
  return needed.length > 0 && needed.every((c) => isMissing(system, c))
}

export const liveOf = (system: System): Live => ({
  isOpen: (name) => system.parts.metadevices.isOpen(topOf(system, name)),
  isResyncing: (name) => system.resyncs.isRunning(name),
  isUnavailable: (name) => isUnavailable(system, name),
  isMissing: (c) => isMissing(system, c),
})

export const liveStatusOf = (system: System, replicas: readonly Piece[]): LiveStatus => ({
  resync: (name) => {
    const m = system.tree.get(name)
    if (m?.kind !== 'mirror' && m?.kind !== 'raid5') return null
    const running = system.resyncs.isRunning(name)
    if (!running && !(m.kind === 'mirror' && m.cancelled)) return null
    const known = system.resyncs.progress(name)
    const size = m.kind === 'mirror' ? m.blocks : columnData(m)
    const { done, total } =
      known === undefined || known.kind === 'verify' ? { done: m.checkpoint?.done ?? 0, total: size } : known
    return { state: running ? 'running' : 'cancelled', doneBlocks: done, totalBlocks: Math.max(total, 1) }
  },
  isMissing: (c) => isMissing(system, c),
  hasReplica: ({ identity, extent }) =>
    replicas.some((r) => overlap(r, { identity, first: extent.first, size: extent.blocks }) !== 'none'),
  deviceId: () => null,
})

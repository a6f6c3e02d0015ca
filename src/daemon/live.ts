/** What runs now, as the pure operations and the status want to see it. */
import type { Live, LiveStatus } from '../meta/kind.js'
import { parentOf } from '../meta/tree.js'
import type { Unit, UnitName } from '../meta/types.js'
import type { System } from './system.js'

/** A submirror is held open by its mirror. */
const top = (system: System, name: UnitName): Unit | undefined => parentOf(system.tree, name) ?? system.tree.get(name)

export const liveOf = (system: System): Live => ({
  isOpen: (name) => system.parts.metadevices.isOpen(top(system, name)?.name ?? name),
  isResyncing: (name) => system.resyncs.isRunning(name),
  isUnavailable: (name) => system.unserved(name) !== undefined,
  isMissing: (c) => system.parts.components.get(c) === undefined,
})

export const liveStatusOf = (system: System, replicas: ReadonlySet<string>): LiveStatus => ({
  resync: (mirror) => {
    const p = system.resyncs.progress(mirror)
    const unit = system.tree.get(mirror)
    return p === undefined || unit === undefined
      ? null
      : { state: p.state, doneBlocks: p.done, totalBlocks: Math.max(p.total, 1) }
  },
  isMissing: (c) => system.parts.components.get(c) === undefined,
  hasReplica: (c) => replicas.has(c.identity),
  deviceId: () => null,
})

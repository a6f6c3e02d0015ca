/** Commands of an administrator, by the pure operations that the request handlers use. */
import { ok } from '../../../src/base/result.js'
import { liveOf } from '../../../src/daemon/live.js'
import { mirrorEvent } from '../../../src/daemon/resyncs.js'
import { attach, detach, offline, online, type Outcome, replace } from '../../../src/meta/operations.js'
import type { Tree } from '../../../src/meta/types.js'
import { errorText, type MetaResult } from '../../../src/msg/errors.js'
import { MIRROR, type World } from './world.js'

type Operation = (tree: Tree) => MetaResult<Outcome>

const operationOf = (world: World, words: readonly string[]): Operation | undefined => {
  const live = liveOf(world.system)
  const [verb, name = ''] = words
  switch (verb) {
    case 'attach': {
      const request = { words: [MIRROR, name], interlace: null, check: false }
      return (tree) => attach(request, { tree, inventory: world.inventory, live, now: 0 })
    }
    case 'detach':
      return (tree) => detach([MIRROR, name], false, tree, live, 0)
    case 'offline':
      return (tree) => offline({ mirror: MIRROR, submirror: name, force: false }, { tree, live, now: 0 })
    case 'online':
      return (tree) => online({ mirror: MIRROR, submirror: name, force: false }, { tree, live, now: 0 })
    case 'enable':
      return (tree) => {
        const { inventory } = world
        return replace({ unit: MIRROR, old: name, new: null }, { tree, inventory, namesOf: (w) => [w], live, now: 0 })
      }
    case 'sync':
      return (tree) => {
        const synced = mirrorEvent(tree, MIRROR, { event: 'sync' })
        return synced.ok ? ok(synced.value.outcome) : synced
      }
    default:
      return undefined
  }
}

/** @returns `ok`, or what was said. */
export const commandOf = (world: World, words: readonly string[]): Promise<string> => {
  const { system } = world
  if (words[0] === 'cancel') return system.resyncs.cancel(MIRROR).then(() => 'ok')
  const operation = operationOf(world, words)
  if (operation === undefined) return Promise.resolve('not there')
  return system.writer.run(async () => {
    const done = await system.apply(operation)
    if (!done.ok) return errorText(done.error)
    system.kickResyncs(done.value.put)
    if (words[0] === 'sync') void system.resyncs.kick(MIRROR)
    return 'ok'
  })
}

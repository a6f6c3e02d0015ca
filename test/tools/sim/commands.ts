/** Commands of an administrator, by the pure operations that the request handlers use. */
import { err, ok } from '../../../src/base/result.js'
import { liveOf } from '../../../src/daemon/live.js'
import { mirrorEvent } from '../../../src/daemon/resyncs.js'
import { sync } from '../../../src/daemon/sync.js'
import {
  attach,
  clear,
  detach,
  type HotSpareAction,
  init,
  initEntries,
  metahs,
  offline,
  online,
  type Outcome,
  param,
  replace,
} from '../../../src/meta/operations.js'
import { isRaw } from '../../../src/meta/raid5tables.js'
import { parseTab } from '../../../src/meta/tab.js'
import { isMetadevice } from '../../../src/meta/tree.js'
import type { Tree, UnitName } from '../../../src/meta/types.js'
import { errorText, type MetaResult, metaError } from '../../../src/msg/errors.js'
import type { World } from './world.js'

type Operation = (tree: Tree) => MetaResult<Outcome>

/** Success when all operands succeeded. */
const whole = (batch: { readonly outcome: Outcome; readonly errors: readonly Parameters<typeof err>[0][] }) => {
  const [problem] = batch.errors
  return problem === undefined ? ok(batch.outcome) : err(problem)
}

const initOf = (world: World, line: string): Operation => {
  const live = liveOf(world.system)
  return (tree) => {
    const tab = parseTab(`${line}\n`, 'md.tab')
    if (!tab.ok) return tab
    const entries = initEntries([], true, tab.value)
    if (!entries.ok) return entries
    const counter = Math.max(-1, ...[...tree.values()].filter(isMetadevice).map((u) => u.minor)) + 1
    const options = { force: false, check: false, random: () => world.nextUnit(), headers: world.headers }
    const context = { tree, inventory: world.inventory, live, now: Date.now(), counter, ...options }
    const { outcome, errors } = init(entries.value, context)
    const [problem] = errors
    return problem === undefined ? ok(outcome) : err(problem)
  }
}

const hotSpares = (world: World, action: string, pool: string | null, words: readonly string[]): Operation => {
  const request = { action: action as HotSpareAction, pool, words }
  return (tree) => metahs(request, { tree, inventory: world.inventory, namesOf: (w) => [w], now: Date.now() })
}

/** First word: what; then as on the command line. */
const operationOf = (world: World, words: readonly string[]): Operation | undefined => {
  const { inventory } = world
  const live = liveOf(world.system)
  const [verb, first = '', ...rest] = words
  const [second = '', third] = rest
  switch (verb) {
    case 'attach':
      return (tree) =>
        attach({ words: [first, ...rest], interlace: null, check: false }, { tree, inventory, live, now: Date.now() })
    case 'detach':
    case 'detach-f':
      return (tree) => detach([first, second], verb === 'detach-f', tree, live, Date.now())
    case 'offline':
    case 'offline-f':
      return (tree) =>
        offline({ mirror: first, submirror: second, force: verb === 'offline-f' }, { tree, live, now: Date.now() })
    case 'online':
      return (tree) => online({ mirror: first, submirror: second, force: false }, { tree, live, now: Date.now() })
    case 'replace':
    case 'replace-f':
      return (tree) =>
        replace(
          { unit: first, old: second, new: third ?? null, force: verb === 'replace-f' },
          { tree, inventory, namesOf: (w) => [w], live, now: Date.now() },
        )
    case 'param':
      return (tree) =>
        param(
          {
            name: first,
            read: second === '-r' ? (third ?? '') : null,
            write: second === '-w' ? (third ?? '') : null,
            pass: second === '-p' ? (third ?? '') : null,
            hotSparePool: second === '-h' ? (third ?? '') : null,
          },
          tree,
        )
    case 'add':
    case 'delete':
      return hotSpares(world, verb, first, rest)
    case 'exchange':
      return hotSpares(world, 'replace', first, rest)
    case 'enable':
      return hotSpares(world, 'enable', null, [first])
    case 'clear': {
      // What a RAID5 device has in its journal alone would be lost.
      const u = world.tree.get(first as UnitName)
      const force = u?.kind !== 'raid5' || isRaw(u)
      const request = { all: false, force, recursive: false, softPartitions: false, names: [first] }
      return (tree) => whole(clear(request, tree, live)) as MetaResult<Outcome>
    }
    case 'init':
      return initOf(world, [first, ...rest].join(' '))
    case 'sync':
      return (tree) => {
        const synced = mirrorEvent(tree, first as UnitName, { event: 'sync' })
        return synced.ok ? ok(synced.value.outcome) : synced
      }
    default:
      return () => err(metaError('syntax', verb))
  }
}

/** metasync of a RAID5 device goes through the daemon's own handler. */
const syncRaid5 = async (world: World, verb: string, name: string): Promise<string> => {
  let said = 'ok'
  const request = { verify: null, parity: verb === 'parity', cancel: verb === 'cancel', restart: false }
  await sync(world.system, (r) => (r.reply === 'error' ? (said = errorText(r.error)) : undefined), {
    op: 'sync',
    names: [name],
    bufferBlocks: null,
    ...request,
  })
  return said
}

/** @returns `ok`, or what was said. */
export const commandOf = (world: World, words: readonly string[]): Promise<string> => {
  const { system } = world
  const [verb, name = ''] = words
  const isRaid5 = system.tree.get(name as UnitName)?.kind === 'raid5'
  if (isRaid5 && (verb === 'sync' || verb === 'parity' || verb === 'cancel')) return syncRaid5(world, verb, name)
  if (verb === 'cancel') return system.resyncs.cancel(name as UnitName).then(() => 'ok')
  if (verb === 'resync-all') return system.startResyncs().then(() => 'ok')
  if (verb === 'probe') return system.writer.run(() => system.probe()).then(() => 'ok')
  const operation = operationOf(world, words)
  if (operation === undefined) return Promise.resolve('not there')
  return system.writer.run(async () => {
    const done = await system.apply(operation)
    if (!done.ok) return errorText(done.error)
    system.kickResyncs(done.value.put)
    if (verb === 'sync') void system.resyncs.kick(name as UnitName)
    return 'ok'
  })
}

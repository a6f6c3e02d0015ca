/**
 * One handler per request. Each gathers what the host knows, asks the pure operation, and has the
 * system carry out the outcome; errors and changes go back as data. Nothing here decides anything.
 */
import { randomInt } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { err, ok, unreachable } from '../base/result.js'
import type { Request } from '../ctl/protocol.js'
import type { Warning } from '../meta/kind.js'
import {
  attach,
  type Batch,
  clear,
  detach,
  init,
  initEntries,
  offline,
  online,
  type Outcome,
  param,
  replace,
} from '../meta/operations.js'
import { lookUpWords } from '../meta/check.js'
import { statusOf } from '../meta/status.js'
import { componentWords, keptWords, NO_TAB, parseTab, type Tab } from '../meta/tab.js'
import { isMetadevice } from '../meta/tree.js'
import type { Inventory, Tree } from '../meta/types.js'
import { type MetaError, type MetaResult, metaError } from '../msg/errors.js'
import { errnoOf, sysError } from '../sys/errno.js'
import { gather, possibleNames } from '../sys/inventory.js'
import { examine, type Piece } from '../sys/storage.js'
import { addReplicas, deleteReplicas, listReplicas, patchLocations } from './databases.js'
import { changeHotSpares } from './hotspares.js'
import { liveOf, liveStatusOf } from './live.js'
import { gatherHeaders } from './raid5headers.js'
import type { Handler, Send } from './server.js'
import { sync } from './sync.js'
import type { System } from './system.js'

type RequestOf<O extends Request['op']> = Extract<Request, { op: O }>

/** Exit status when the state database refuses changes (commands.md 0.4). */
const STATUS_STALE = 66

export const mdTabPath = (system: System): string => join(system.parts.where.etc, 'md.tab')

export const readTab = async (system: System): Promise<MetaResult<Tab>> => {
  const path = mdTabPath(system)
  try {
    return parseTab(await readFile(path, 'utf8'), path)
  } catch (e) {
    if (errnoOf(e) === 'ENOENT') return ok(NO_TAB(path))
    return err(sysError(e, path))
  }
}

/** What the state database's replicas lie on, as far as it is there. */
export const replicaPieces = async (system: System): Promise<readonly Piece[]> => {
  const found: Piece[] = []
  for (const path of system.parts.db.places()) {
    const storage = await examine(path).catch(() => undefined)
    if (storage !== undefined) found.push(storage)
  }
  return found
}

/** Commands wait for a device as long as requests do. */
export const limitOf = (system: System): number => system.parts.config.componentTimeoutSeconds * 1000

export const inventoryFor = async (system: System, words: readonly string[], cwd: string): Promise<Inventory> =>
  gather(words, {
    cwd,
    disksTab: join(system.parts.where.etc, 'disks.tab'),
    replicas: await replicaPieces(system),
    limitMillis: limitOf(system),
  })

/** The two reasons for which no configuration may change. */
export const refusal = (system: System): { readonly error: MetaError; readonly status: number } | null => {
  switch (system.parts.db.health) {
    case 'none':
      return { error: metaError('noDatabases'), status: 1 }
    case 'stale':
      return { error: metaError('stale'), status: STATUS_STALE }
    case 'good':
      return null
  }
}

const warn = (send: Send, warnings: readonly Warning[]): void => {
  for (const lines of warnings) send({ reply: 'warning', lines })
}

const answer = (send: Send, done: Outcome): void => {
  warn(send, done.warnings)
  for (const change of done.changes) send({ reply: 'change', change })
}

export const fail = (send: Send, error: MetaError, status = 1): number => {
  send({ reply: 'error', error })
  return status
}

type Operation = (tree: Tree) => MetaResult<Outcome>

/** Commits (unless only checking) and says what happened. */
export const carryOut = async (system: System, send: Send, operation: Operation, check = false): Promise<number> => {
  const done = check ? operation(system.tree) : await system.apply(operation)
  if (!done.ok) return fail(send, done.error)
  if (!check) system.kickResyncs(done.value.put)
  answer(send, done.value)
  return 0
}

const carryOutBatch = async (
  system: System,
  send: Send,
  of: (tree: Tree) => Batch,
  check: boolean,
): Promise<number> => {
  let errors: readonly MetaError[] = []
  const operation: Operation = (tree) => {
    const batch = of(tree)
    errors = batch.errors
    return ok(batch.outcome)
  }
  const status = await carryOut(system, send, operation, check)
  for (const error of errors) send({ reply: 'error', error })
  return errors.length > 0 ? 1 : status
}

/** 1 to 2^53 - 1: randomInt gives 48 bits at most. */
const randomUnit = (): number => randomInt(2 ** 21) * 2 ** 32 + randomInt(1, 2 ** 32)

const doInit = async (system: System, send: Send, r: RequestOf<'init'>): Promise<number> => {
  const refused = refusal(system)
  if (refused !== null) return fail(send, refused.error, refused.status)
  const tab = r.all || r.words.length === 1 ? await readTab(system) : ok(NO_TAB(mdTabPath(system)))
  if (!tab.ok) return fail(send, tab.error)
  const entries = initEntries(r.words, r.all, tab.value)
  if (!entries.ok) return fail(send, entries.error)
  const inventory = await inventoryFor(system, lookUpWords(componentWords(entries.value), system.tree), r.cwd)
  const kept = keptWords(entries.value).map(inventory)
  const headers = await gatherHeaders(
    kept.flatMap((d) => (d.ok ? [d.value] : [])),
    limitOf(system),
  )
  const { force, check } = r
  const operation = (tree: Tree): Batch => {
    const counter = Math.max(-1, ...[...tree.values()].filter(isMetadevice).map((u) => u.minor)) + 1
    return init(entries.value, {
      tree,
      inventory,
      live: liveOf(system),
      now: Date.now(),
      force,
      counter,
      check,
      random: randomUnit,
      headers,
    })
  }
  return carryOutBatch(system, send, operation, check)
}

const doAttach = async (system: System, send: Send, r: RequestOf<'attach'>): Promise<number> => {
  const refused = refusal(system)
  if (refused !== null) return fail(send, refused.error, refused.status)
  const inventory = await inventoryFor(system, lookUpWords(r.words.slice(1), system.tree), r.cwd)
  const context = { inventory, live: liveOf(system), now: Date.now() }
  return carryOut(system, send, (tree) => attach(r, { ...context, tree }), r.check)
}

const doDetach = async (system: System, send: Send, r: RequestOf<'detach'>): Promise<number> => {
  const refused = refusal(system)
  if (refused !== null) return fail(send, refused.error, refused.status)
  return carryOut(system, send, (tree) => detach(r.words, r.force, tree, liveOf(system), Date.now()))
}

const doClear = async (system: System, send: Send, r: RequestOf<'clear'>): Promise<number> => {
  const refused = refusal(system)
  if (refused !== null) return fail(send, refused.error, refused.status)
  return carryOutBatch(system, send, (tree) => clear(r, tree, liveOf(system)), false)
}

const doParam = async (system: System, send: Send, r: RequestOf<'param'>): Promise<number> => {
  const asks = r.read === null && r.write === null && r.pass === null && r.hotSparePool === null
  const refused = asks ? null : refusal(system)
  if (refused !== null) return fail(send, refused.error, refused.status)
  return carryOut(system, send, (tree) => param(r, tree))
}

/** The optimized resync of a side that comes online starts as every copy does. */
const doSide = async (system: System, send: Send, r: RequestOf<'offline' | 'online'>): Promise<number> => {
  const refused = refusal(system)
  if (refused !== null) return fail(send, refused.error, refused.status)
  const operation = r.op === 'offline' ? offline : online
  return carryOut(system, send, (tree) => operation(r, { tree, live: liveOf(system), now: Date.now() }))
}

const doReplace = async (system: System, send: Send, r: RequestOf<'replace'>): Promise<number> => {
  const refused = refusal(system)
  if (refused !== null) return fail(send, refused.error, refused.status)
  const words = [r.old, ...(r.new === null ? [] : [r.new])]
  const inventory = await inventoryFor(system, lookUpWords(words, system.tree), r.cwd)
  const context = { inventory, live: liveOf(system), namesOf: (word: string) => possibleNames(word, r.cwd) }
  return carryOut(system, send, (tree) => replace(r, { ...context, tree, now: Date.now() }))
}

const doSync = async (system: System, send: Send, r: RequestOf<'sync'>): Promise<number> => {
  const refused = r.cancel ? null : refusal(system)
  return refused === null ? sync(system, send, r) : fail(send, refused.error, refused.status)
}

const doStat = async (system: System, send: Send, r: RequestOf<'stat'>): Promise<number> => {
  if (system.parts.db.health === 'none') return fail(send, metaError('noDatabases'))
  if (r.probe) warn(send, await system.writer.run(() => system.probe()))
  const live = liveStatusOf(system, await replicaPieces(system))
  const { report, errors } = statusOf(system.tree, live, { stale: system.parts.db.health === 'stale', names: r.names })
  send({ reply: 'stat', report })
  for (const error of errors) send({ reply: 'error', error })
  return errors.length > 0 ? 1 : 0
}

const dispatch = (system: System, request: Request, send: Send): Promise<number> => {
  const writing = (job: () => Promise<number>): Promise<number> => system.writer.run(job)
  switch (request.op) {
    case 'init':
      return writing(() => doInit(system, send, request))
    case 'clear':
      return writing(() => doClear(system, send, request))
    case 'attach':
      return writing(() => doAttach(system, send, request))
    case 'detach':
      return writing(() => doDetach(system, send, request))
    case 'param':
      return writing(() => doParam(system, send, request))
    case 'sync':
      return doSync(system, send, request)
    case 'offline':
    case 'online':
      return writing(() => doSide(system, send, request))
    case 'replace':
      return writing(() => doReplace(system, send, request))
    case 'hotspare':
      return writing(() => changeHotSpares(system, send, request))
    case 'stat':
      return doStat(system, send, request)
    case 'dbAdd':
      return writing(() => addReplicas(system, send, request))
    case 'dbDelete':
      return writing(() => deleteReplicas(system, send, request))
    case 'dbList':
      return listReplicas(system, send)
    case 'dbLocations':
      return writing(() => patchLocations(system, send, request))
    case 'ping':
      send({ reply: 'pong', version: 1, pid: process.pid, metad: '0.1.0' })
      return Promise.resolve(0)
    default:
      return unreachable(request)
  }
}

export const makeHandler =
  (system: System): Handler =>
  (request, send) =>
    dispatch(system, request, send)

/**
 * One handler per request. Each gathers what the host knows, asks the pure operation, and has the
 * system carry out the outcome; errors and changes go back as data. Nothing here decides anything.
 */
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
  type Outcome,
  outcome,
  param,
} from '../meta/operations.js'
import { lookUpWords } from '../meta/check.js'
import { parseUnitName } from '../meta/names.js'
import { statusOf } from '../meta/status.js'
import { componentWords, NO_TAB, parseTab, type Tab } from '../meta/tab.js'
import { isMetadevice } from '../meta/tree.js'
import type { Inventory, MirrorUnit, Unit } from '../meta/types.js'
import { type MetaError, type MetaResult, metaError } from '../msg/errors.js'
import { errnoOf, sysError } from '../sys/errno.js'
import { gather } from '../sys/inventory.js'
import { examine } from '../sys/storage.js'
import { addReplicas, deleteReplicas, listReplicas, patchLocations } from './databases.js'
import { changeHotSpares } from './hotspares.js'
import { liveOf, liveStatusOf } from './live.js'
import type { Handler, Send } from './server.js'
import type { System } from './system.js'

type RequestOf<O extends Request['op']> = Extract<Request, { op: O }>

/** Exit status when the state database refuses changes (commands.md 0.4). */
const STATUS_STALE = 66
/** metasync's per-device failure. */
const STATUS_SYNC = 255

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

/** Identities of the storage that state database replicas lie on. */
export const replicaIdentities = async (system: System): Promise<ReadonlySet<string>> => {
  const found = new Set<string>()
  for (const path of system.parts.db.places()) {
    const storage = await examine(path).catch(() => undefined)
    if (storage !== undefined) found.add(storage.identity)
  }
  return found
}

export const inventoryFor = async (system: System, words: readonly string[], cwd: string): Promise<Inventory> =>
  gather(words, {
    cwd,
    disksTab: join(system.parts.where.etc, 'disks.tab'),
    replicas: await replicaIdentities(system),
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

/** Commits (unless only checking) and says what happened. */
export const carryOut = async (
  system: System,
  send: Send,
  result: MetaResult<Outcome>,
  check: boolean,
): Promise<number> => {
  if (!result.ok) return fail(send, result.error)
  if (!check) {
    const applied = await system.apply(result.value)
    if (!applied.ok) return fail(send, applied.error)
    system.kickResyncs(result.value.put)
  }
  answer(send, result.value)
  return 0
}

const carryOutBatch = async (system: System, send: Send, batch: Batch, check: boolean): Promise<number> => {
  const status = await carryOut(system, send, ok(batch.outcome), check)
  for (const error of batch.errors) send({ reply: 'error', error })
  return batch.errors.length > 0 ? 1 : status
}

const doInit = async (system: System, send: Send, r: RequestOf<'init'>): Promise<number> => {
  const refused = refusal(system)
  if (refused !== null) return fail(send, refused.error, refused.status)
  const tab = r.all || r.words.length === 1 ? await readTab(system) : ok(NO_TAB(mdTabPath(system)))
  if (!tab.ok) return fail(send, tab.error)
  const entries = initEntries(r.words, r.all, tab.value)
  if (!entries.ok) return fail(send, entries.error)
  const inventory = await inventoryFor(system, lookUpWords(componentWords(entries.value), system.tree), r.cwd)
  const counter = Math.max(-1, ...[...system.tree.values()].filter(isMetadevice).map((u) => u.minor)) + 1
  const batch = init(entries.value, {
    tree: system.tree,
    inventory,
    live: liveOf(system),
    now: Date.now(),
    force: r.force,
    counter,
    check: r.check,
  })
  return carryOutBatch(system, send, batch, r.check)
}

const doAttach = async (system: System, send: Send, r: RequestOf<'attach'>): Promise<number> => {
  const refused = refusal(system)
  if (refused !== null) return fail(send, refused.error, refused.status)
  const inventory = await inventoryFor(system, lookUpWords(r.words.slice(1), system.tree), r.cwd)
  const context = { tree: system.tree, inventory, live: liveOf(system), now: Date.now() }
  return carryOut(system, send, attach(r, context), r.check)
}

const doDetach = async (system: System, send: Send, r: RequestOf<'detach'>): Promise<number> => {
  const refused = refusal(system)
  if (refused !== null) return fail(send, refused.error, refused.status)
  return carryOut(system, send, detach(r.words, r.force, system.tree, liveOf(system), Date.now()), false)
}

const doClear = async (system: System, send: Send, r: RequestOf<'clear'>): Promise<number> => {
  const refused = refusal(system)
  if (refused !== null) return fail(send, refused.error, refused.status)
  return carryOutBatch(system, send, clear(r, system.tree, liveOf(system)), false)
}

const doParam = async (system: System, send: Send, r: RequestOf<'param'>): Promise<number> => {
  const asks = r.read === null && r.write === null && r.pass === null && r.hotSparePool === null
  const refused = asks ? null : refusal(system)
  if (refused !== null) return fail(send, refused.error, refused.status)
  return carryOut(system, send, param(r, system.tree), false)
}

/** Copies that were cancelled or failed are wanted again. */
const rearmed = (m: MirrorUnit): MirrorUnit => ({
  ...m,
  cancelled: false,
  submirrors: m.submirrors.map((s) => (s.state === 'attached' ? { ...s, state: 'resync', changed: Date.now() } : s)),
})

const doSync = async (system: System, send: Send, r: RequestOf<'sync'>): Promise<number> => {
  const refused = refusal(system)
  if (refused !== null) return fail(send, refused.error, refused.status)
  let status = 0
  for (const word of r.names) {
    const name = parseUnitName(word)
    const unit: Unit | undefined = name.ok ? system.tree.get(name.value) : undefined
    if (!name.ok || unit?.kind !== 'mirror') {
      const error = !name.ok ? name.error : metaError(unit === undefined ? 'unitNotSetUp' : 'unknownType', name.value)
      status = fail(send, error, STATUS_SYNC)
      continue
    }
    const wanted = rearmed(unit)
    if (unit.cancelled || wanted.submirrors.some((s, i) => s !== unit.submirrors[i])) {
      const applied = await system.apply(outcome(system.tree, { put: [wanted] }))
      if (!applied.ok) {
        status = fail(send, applied.error, STATUS_SYNC)
        continue
      }
    }
    system.setResyncBuffer(unit.name, r.bufferBlocks)
    system.kickResyncs([wanted])
  }
  return status
}

/** Outside the writer: a resync that ends needs the writer to record that it did. */
const doCancel = async (system: System, send: Send, r: RequestOf<'sync'>): Promise<number> => {
  let status = 0
  for (const word of r.names) {
    const name = parseUnitName(word)
    const unit = name.ok ? system.tree.get(name.value) : undefined
    if (!name.ok) status = fail(send, name.error, STATUS_SYNC)
    else if (unit === undefined) status = fail(send, metaError('unitNotSetUp', name.value), STATUS_SYNC)
    else if (unit.kind !== 'mirror') status = fail(send, metaError('unknownType', name.value), STATUS_SYNC)
    else await system.resyncs.cancel(name.value)
  }
  return status
}

/** The boot form: by pass number, in the background as SVM's. */
const doRestart = async (system: System, send: Send): Promise<number> => {
  const refused = refusal(system)
  if (refused !== null) return fail(send, refused.error, refused.status)
  system.startResyncs()
  return 0
}

const doSyncOrElse = (system: System, send: Send, r: RequestOf<'sync'>): Promise<number> => {
  if (r.verify !== null) return Promise.resolve(fail(send, metaError('unsupported', undefined, 'verification'), 255))
  if (r.cancel) return doCancel(system, send, r)
  return system.writer.run(() => (r.restart ? doRestart(system, send) : doSync(system, send, r)))
}

const doStat = async (system: System, send: Send, r: RequestOf<'stat'>): Promise<number> => {
  if (r.probe) await system.probe()
  const live = liveStatusOf(system, await replicaIdentities(system))
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
      return doSyncOrElse(system, send, request)
    case 'offline':
    case 'online':
    case 'replace':
      return Promise.resolve(fail(send, metaError('unsupported', undefined, `meta${request.op}`)))
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

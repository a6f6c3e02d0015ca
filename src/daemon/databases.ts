/** metadb's requests: words become places, the rules are the state database's (commands.md 5). */
import { readFile } from 'node:fs/promises'
import { isAbsolute, join, resolve } from 'node:path'
import { err, ok } from '../base/result.js'
import type { Request } from '../ctl/protocol.js'
import { parseLocations } from '../db/locations.js'
import type { ReplicaPlace } from '../db/types.js'
import { findEntry, replicaLocations } from '../meta/tab.js'
import { usedSlices } from '../meta/tree.js'
import type { UnitName } from '../meta/types.js'
import { type MetaError, type MetaResult, metaError } from '../msg/errors.js'
import { errnoOf, sysError } from '../sys/errno.js'
import { writeAtomically } from '../sys/files.js'
import { gather } from '../sys/inventory.js'
import { examine } from '../sys/storage.js'
import { limitOf, mdTabPath, readTab } from './requests.js'
import type { Send } from './server.js'
import type { System } from './system.js'

type DbRequest = Extract<Request, { op: 'dbAdd' | 'dbDelete' }>

interface Wanted {
  readonly places: readonly ReplicaPlace[]
  readonly count: number
  readonly length: number | null
}

const MDDB_ENTRY = /^mddb\d+$/

/** A replica is a whole file or block device; a slice inside a labelled disk has no room for LMDB's file. */
const SOLARIS_SLICE = /^(?:\/dev\/r?dsk\/)?c\d+(?:t[0-9A-Fa-f]+)?d\d+s\d+$/

const pathOf = (word: string, cwd: string): string => (isAbsolute(word) ? word : resolve(cwd, word))

const placesOf = (words: readonly string[], cwd: string): MetaResult<readonly ReplicaPlace[]> => {
  const slice = words.find((w) => SOLARIS_SLICE.test(w))
  if (slice !== undefined) return err(metaError('unsupported', slice, 'a state database replica on a slice'))
  return ok(words.map((w) => ({ path: pathOf(w, cwd) })))
}

/** Words are places, or names of mddbNN entries of md.tab, which bring count and length with them. */
const wanted = async (system: System, request: DbRequest): Promise<MetaResult<Wanted>> => {
  const places: ReplicaPlace[] = []
  let count = request.op === 'dbAdd' ? request.count : 1
  let length = request.op === 'dbAdd' ? request.length : null
  for (const word of request.words) {
    if (!MDDB_ENTRY.test(word)) {
      const typed = placesOf([word], request.cwd)
      if (!typed.ok) return typed
      places.push(...typed.value)
      continue
    }
    const tab = await readTab(system)
    if (!tab.ok) return tab
    const entry = findEntry(tab.value, word as UnitName)
    if (entry === null) return err(metaError('sys', word, `no such entry in ${mdTabPath(system)}`))
    const listed = replicaLocations(entry)
    if (!listed.ok) return listed
    count = listed.value.count
    length = listed.value.length
    const inTab = placesOf(listed.value.places, request.cwd)
    if (!inTab.ok) return inTab
    places.push(...inTab.value)
  }
  return ok({ places, count, length })
}

/** A place that exists must be used by nothing else (commands.md 5.1). */
const conflict = async (system: System, { path }: ReplicaPlace): Promise<MetaError | null> => {
  let storage
  try {
    storage = await examine(path)
  } catch (e) {
    return errnoOf(e) === 'ENOENT' ? null : sysError(e, path)
  }
  if (storage === undefined) return null
  const user = usedSlices(system.tree).find((u) => u.slice.identity === storage.identity)
  if (user !== undefined) return metaError('appearsTwice', path, user.unit)
  const options = { cwd: '/', disksTab: '/nonexistent', replicas: new Set<string>(), limitMillis: limitOf(system) }
  const device = (await gather([path], options))(path)
  if (!device.ok || device.value.usedBy === null) return device.ok ? null : device.error
  const { how, where } = device.value.usedBy
  if (how === 'mounted') return metaError('mountedOn', path, where)
  return how === 'swap' ? metaError('swappedOn', path) : metaError('sys', path, 'Device or resource busy')
}

const fail = (send: Send, error: MetaError): number => {
  send({ reply: 'error', error })
  return 1
}

export const addReplicas = async (
  system: System,
  send: Send,
  request: Extract<Request, { op: 'dbAdd' }>,
): Promise<number> => {
  const what = await wanted(system, request)
  if (!what.ok) return fail(send, what.error)
  const { places, count, length } = what.value
  for (const place of places) {
    const error = await conflict(system, place)
    if (error !== null) return fail(send, error)
  }
  const added = await system.parts.db.add(places, { force: request.force, count, length })
  return added.ok ? 0 : fail(send, added.error)
}

export const deleteReplicas = async (
  system: System,
  send: Send,
  request: Extract<Request, { op: 'dbDelete' }>,
): Promise<number> => {
  const what = await wanted(system, request)
  if (!what.ok) return fail(send, what.error)
  const deleted = await system.parts.db.delete(what.value.places, { force: request.force })
  return deleted.ok ? 0 : fail(send, deleted.error)
}

export const listReplicas = async (system: System, send: Send): Promise<number> => {
  send({ reply: 'replicas', replicas: await system.parts.db.status() })
  return 0
}

/**
 * metadb -p. mddb.cf is our boot list: without a file it is written again from the list in memory; a
 * file is taken over as it is, line by line checked, and counts from the next start on.
 */
export const patchLocations = async (
  system: System,
  send: Send,
  request: Extract<Request, { op: 'dbLocations' }>,
): Promise<number> => {
  if (request.file === null) {
    const written = await system.parts.db.writeLocations()
    return written.ok ? 0 : fail(send, written.error)
  }
  const path = pathOf(request.file, request.cwd)
  try {
    const text = await readFile(path, 'utf8')
    const { any, notices } = parseLocations(text)
    const notice = notices[0]
    if (notice !== undefined || !any) return fail(send, metaError('sys', path, notice ?? 'error in mddb.cf file'))
    await writeAtomically(join(system.parts.where.etc, 'mddb.cf'), text)
    return 0
  } catch (e) {
    return fail(send, sysError(e, path))
  }
}

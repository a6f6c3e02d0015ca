/** metadb's requests: words become places, the rules are the state database's (commands.md 5). */
import { readFile, stat } from 'node:fs/promises'
import { isAbsolute, join, resolve } from 'node:path'
import { err, ok } from '../base/result.js'
import type { Request } from '../ctl/protocol.js'
import { parseLocations } from '../db/locations.js'
import type { ReplicaPlace } from '../db/types.js'
import { useOf } from '../meta/check.js'
import { findEntry, replicaLocations } from '../meta/tab.js'
import { usedSlices } from '../meta/tree.js'
import type { Device, UnitName } from '../meta/types.js'
import { type MetaError, type MetaResult, metaError } from '../msg/errors.js'
import { errnoOf, sysError } from '../sys/errno.js'
import { writeAtomically } from '../sys/files.js'
import { overlap, type Piece } from '../sys/storage.js'
import { inventoryFor, mdTabPath, readTab } from './requests.js'
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

/** Storage at the places of a command, in its order; a place that does not exist yet conflicts with nothing. */
const conflicts = async (system: System, places: readonly ReplicaPlace[]): Promise<MetaError | null> => {
  const used = usedSlices(system.tree)
  const words = [...places.map((p) => p.path), ...used.map((u) => u.slice.name)]
  const look = await inventoryFor(system, words, '/')
  const earlier: Device[] = []
  for (const { path } of places) {
    try {
      if ((await stat(path)).isDirectory()) continue
    } catch (e) {
      if (errnoOf(e) === 'ENOENT') continue
      return sysError(e, path)
    }
    const found = look(path)
    if (!found.ok) return found.error
    const d = found.value
    for (const u of used) {
      const now = look(u.slice.name)
      const how = overlap(pieceOf(d), pieceOf(now.ok ? now.value : u.slice))
      if (how !== 'none') return metaError(how === 'same' ? 'appearsTwice' : 'overlaps', path, u.unit)
    }
    if (d.isReplica) return metaError('replicaExists', path)
    if (earlier.some((e) => overlap(pieceOf(e), pieceOf(d)) !== 'none')) return metaError('replicaExists', path)
    const use = useOf(d)
    if (use !== null) return use
    earlier.push(d)
  }
  return null
}

const pieceOf = ({ identity, extent }: Pick<Device, 'identity' | 'extent'>): Piece => ({
  identity,
  first: extent.first,
  size: extent.blocks,
})

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
  const error = await conflicts(system, places)
  if (error !== null) return fail(send, error)
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

/**
 * What lies in a replica. Every LMDB value is a frame: who it belongs to (replica id, key), when it was written
 * (term, epoch), a payload of JSON, and SHA-256 over all of it, because LMDB itself checks nothing. The `head`
 * carries the set's id, the list of replicas, a digest over all records and a chain over all commits, so a lost,
 * extra, moved or old record is found as surely as a flipped bit.
 */
import { createHash } from 'node:crypto'
import { type Result, err, ok } from '../base/result.js'
import type { Lists, Version } from './quorum.js'
import type { Json, RecordChanges } from './types.js'

/** One listed replica. */
export interface Listed {
  /** 32 hex digits, random, also inside every frame of the replica. */
  readonly id: string
  readonly path: string
  /** What `metadb -a` was given: the directory or the first file of several; `metadb -d` takes it again. */
  readonly place: string
  readonly kind: 'file' | 'block'
  /** Which of several at one place. */
  readonly index: number
  /** Shown by metadb; null when only mddb.cf knows the replica. */
  readonly firstBlock: number | null
  readonly blocks: number | null
  /** The storage's own identity (inode and birth) when it was last written as a whole; null: never seen. */
  readonly identity: string | null
}

export interface RecordEntry {
  readonly value: Json
  readonly payload: Buffer
  readonly version: Version
  readonly digest: Buffer
}

/** The whole database at one version. Immutable. */
export interface Image {
  readonly set: string
  readonly version: Version
  readonly list: readonly Listed[]
  readonly previous: readonly Listed[] | null
  /** Over all records. */
  readonly digest: string
  /** Over all commits. */
  readonly chain: string
  readonly records: ReadonlyMap<string, RecordEntry>
}

export type RawEntry = readonly [key: string, value: Uint8Array]

export const HEAD_KEY = 'head'
export const PROMISE_KEY = 'promise'
const RECORD_PREFIX = 'r/'
const MAGIC = 0x6d646462
const FORMAT = 1
const HEADER_BYTES = 48
const SUM_BYTES = 32
export const MAX_NAME_BYTES = 512
export const ID_PATTERN = /^[0-9a-f]{32}$/

export const sha256 = (...parts: readonly (string | Uint8Array)[]): Buffer => {
  const h = createHash('sha256')
  for (const p of parts) h.update(p)
  return h.digest()
}

export const listsOf = (image: Pick<Image, 'list' | 'previous'>): Lists => ({
  list: image.list.map((l) => l.id),
  previous: image.previous === null ? null : image.previous.map((l) => l.id),
})

/** Every replica an image concerns, once. */
export const membersOf = (image: Pick<Image, 'list' | 'previous'>): readonly Listed[] => {
  const ids = new Set(image.list.map((l) => l.id))
  return [...image.list, ...(image.previous ?? []).filter((l) => !ids.has(l.id))]
}

interface Frame {
  readonly id: string
  readonly key: string
  readonly version: Version
  readonly payload: Buffer
}

export const encodeFrame = (id: string, key: string, version: Version, payload: Buffer): Buffer => {
  const name = Buffer.from(key, 'utf8')
  const out = Buffer.alloc(HEADER_BYTES + name.length + payload.length + SUM_BYTES)
  out.writeUInt32BE(MAGIC, 0)
  out.writeUInt16BE(FORMAT, 4)
  out.writeUInt16BE(name.length, 6)
  out.writeUInt32BE(payload.length, 8)
  out.write(id, 16, 16, 'hex')
  out.writeBigUInt64BE(BigInt(version.term), 32)
  out.writeBigUInt64BE(BigInt(version.epoch), 40)
  name.copy(out, HEADER_BYTES)
  payload.copy(out, HEADER_BYTES + name.length)
  sha256(out.subarray(0, out.length - SUM_BYTES)).copy(out, out.length - SUM_BYTES)
  return out
}

export const decodeFrame = (key: string, bytes: Uint8Array): Result<Frame, string> => {
  const b = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (b.length < HEADER_BYTES + SUM_BYTES || b.readUInt32BE(0) !== MAGIC) return err('not a record of a state database')
  if (!sha256(b.subarray(0, b.length - SUM_BYTES)).equals(b.subarray(b.length - SUM_BYTES)))
    return err('checksum error')
  if (b.readUInt16BE(4) !== FORMAT) return err(`record format ${b.readUInt16BE(4)} is not known`)
  const nameEnd = HEADER_BYTES + b.readUInt16BE(6)
  if (nameEnd + b.readUInt32BE(8) + SUM_BYTES !== b.length) return err('record has a wrong length')
  if (b.toString('utf8', HEADER_BYTES, nameEnd) !== key) return err('record stands under another name')
  const term = b.readBigUInt64BE(32)
  const epoch = b.readBigUInt64BE(40)
  if (term > Number.MAX_SAFE_INTEGER || epoch > Number.MAX_SAFE_INTEGER) return err('record has an impossible epoch')
  return ok({
    id: b.toString('hex', 16, 32),
    key,
    version: { term: Number(term), epoch: Number(epoch) },
    payload: Buffer.from(b.subarray(nameEnd, b.length - SUM_BYTES)),
  })
}

const makeEntry = (name: string, payload: Buffer, version: Version, value: Json): RecordEntry => ({
  value,
  payload,
  version,
  digest: sha256(`${name}\0${version.term}.${version.epoch}\0`, payload),
})

const digestOf = (records: ReadonlyMap<string, RecordEntry>): string => {
  const parts: (string | Uint8Array)[] = []
  for (const name of [...records.keys()].sort()) parts.push(records.get(name)?.digest ?? '')
  return sha256(...parts).toString('hex')
}

const chainOf = (before: string, version: Version, digest: string): string =>
  sha256(`${before}\0${version.term}.${version.epoch}\0${digest}`).toString('hex')

export const emptyImage = (set: string, list: readonly Listed[]): Image => {
  const version = { term: 1, epoch: 1 }
  const records = new Map<string, RecordEntry>()
  const digest = digestOf(records)
  return { set, version, list, previous: null, records, digest, chain: chainOf('', version, digest) }
}

export interface NextImage {
  readonly version: Version
  readonly changes?: RecordChanges
  readonly list?: readonly Listed[]
  readonly previous?: readonly Listed[] | null
}

export const nextImage = (from: Image, next: NextImage): Image => {
  let { records, digest } = from
  if (next.changes !== undefined && next.changes.size > 0) {
    const changed = new Map(from.records)
    for (const [name, value] of next.changes) {
      if (value === null) changed.delete(name)
      else changed.set(name, makeEntry(name, Buffer.from(JSON.stringify(value), 'utf8'), next.version, value))
    }
    records = changed
    digest = digestOf(records)
  }
  return {
    set: from.set,
    version: next.version,
    list: next.list ?? from.list,
    previous: next.previous === undefined ? from.previous : next.previous,
    records,
    digest,
    chain: chainOf(from.chain, next.version, digest),
  }
}

export const encodeHead = (image: Image, id: string): Buffer =>
  encodeFrame(
    id,
    HEAD_KEY,
    image.version,
    Buffer.from(
      JSON.stringify({
        set: image.set,
        list: image.list,
        previous: image.previous,
        count: image.records.size,
        digest: image.digest,
        chain: image.chain,
      }),
      'utf8',
    ),
  )

/** The promise of a start: nobody with a lower term may be believed to be newer. */
export const encodePromise = (id: string, term: number): Buffer =>
  encodeFrame(id, PROMISE_KEY, { term, epoch: 0 }, Buffer.alloc(0))

export const encodeFull = (image: Image, id: string, promise: number): RawEntry[] => [
  [HEAD_KEY, encodeHead(image, id)],
  [PROMISE_KEY, encodePromise(id, promise)],
  ...[...image.records].map(([name, r]): RawEntry => [
    RECORD_PREFIX + name,
    encodeFrame(id, RECORD_PREFIX + name, r.version, r.payload),
  ]),
]

export const encodeDelta = (
  image: Image,
  names: Iterable<string>,
  id: string,
): { puts: RawEntry[]; removes: string[] } => {
  const puts: RawEntry[] = [[HEAD_KEY, encodeHead(image, id)]]
  const removes: string[] = []
  for (const name of names) {
    const r = image.records.get(name)
    const key = RECORD_PREFIX + name
    if (r === undefined) removes.push(key)
    else puts.push([key, encodeFrame(id, key, r.version, r.payload)])
  }
  return { puts, removes }
}

const isObject = (x: unknown): x is Readonly<Record<string, unknown>> => typeof x === 'object' && x !== null
const isBlocks = (x: unknown): x is number | null => x === null || Number.isSafeInteger(x)

const isListed = (x: unknown): x is Listed =>
  isObject(x) &&
  typeof x['id'] === 'string' &&
  ID_PATTERN.test(x['id']) &&
  typeof x['path'] === 'string' &&
  typeof x['place'] === 'string' &&
  (x['kind'] === 'file' || x['kind'] === 'block') &&
  Number.isSafeInteger(x['index']) &&
  isBlocks(x['firstBlock']) &&
  isBlocks(x['blocks']) &&
  (x['identity'] === null || typeof x['identity'] === 'string')

const parseJson = (b: Buffer): unknown => {
  try {
    return JSON.parse(b.toString('utf8'))
  } catch {
    return undefined
  }
}

export interface Decoded {
  readonly id: string
  readonly image: Image
  readonly promise: number
  readonly head: Buffer
}
/** F: not a state database that we understand. D: one with damaged contents. */
export interface DecodeFault {
  readonly letter: 'F' | 'D'
  readonly problem: string
}

export const decodeImage = (entries: readonly RawEntry[]): Result<Decoded, DecodeFault> => {
  const bad = (letter: 'F' | 'D', problem: string): Result<Decoded, DecodeFault> => err({ letter, problem })
  const raw = new Map(entries)
  const headBytes = raw.get(HEAD_KEY)
  const promiseBytes = raw.get(PROMISE_KEY)
  if (headBytes === undefined || promiseBytes === undefined) return bad('F', 'head record is missing')
  const head = decodeFrame(HEAD_KEY, headBytes)
  if (!head.ok) return bad('F', `head: ${head.error}`)
  const { id, version, payload } = head.value
  const h = parseJson(payload)
  if (!isObject(h)) return bad('F', 'head: not understood')
  const { set, list, previous, digest, chain } = h
  if (typeof set !== 'string' || typeof digest !== 'string' || typeof chain !== 'string')
    return bad('F', 'head: not understood')
  if (!Array.isArray(list) || !list.every(isListed)) return bad('F', 'head: list of replicas is not understood')
  if (previous !== null && !(Array.isArray(previous) && previous.every(isListed)))
    return bad('F', 'head: list of replicas is not understood')
  const promise = decodeFrame(PROMISE_KEY, promiseBytes)
  if (!promise.ok || promise.value.id !== id) return bad('D', 'promise record is damaged')

  const records = new Map<string, RecordEntry>()
  for (const [key, bytes] of entries) {
    if (key === HEAD_KEY || key === PROMISE_KEY) continue
    const frame = decodeFrame(key, bytes)
    if (!frame.ok) return bad('D', `${key}: ${frame.error}`)
    if (frame.value.id !== id || !key.startsWith(RECORD_PREFIX)) return bad('D', `${key}: belongs to another replica`)
    const value = parseJson(frame.value.payload)
    if (value === undefined) return bad('D', `${key}: not understood`)
    const name = key.slice(RECORD_PREFIX.length)
    records.set(name, makeEntry(name, frame.value.payload, frame.value.version, value as Json))
  }
  if (h['count'] !== records.size || digestOf(records) !== digest) return bad('D', 'records do not add up to the head')
  const image: Image = { set, version, list, previous, digest, chain, records }
  return ok({ id, image, promise: promise.value.version.term, head: Buffer.from(headBytes) })
}

const PAGE = 4096
const MIN_PHYSICAL = 1024 * 1024

/** Bytes a replica of `blocks` really reserves: LMDB cannot work in less than a megabyte. */
export const physicalBytes = (blocks: number): number => Math.max(blocks * 512, MIN_PHYSICAL)
/** LMDB copies on write and pages are half full at worst, so a quarter is what can be promised. */
export const usableBytes = (blocks: number): number => physicalBytes(blocks) / 4

const stored = (bytes: number): number => (bytes > PAGE / 2 - 64 ? Math.ceil((bytes + 24) / PAGE) * PAGE : bytes + 24)
/** What an image takes in one replica, at most. */
export const imageBytes = (image: Image): number => {
  let sum = stored(encodeHead(image, '0'.repeat(32)).length) + PAGE
  for (const [name, r] of image.records)
    sum += stored(HEADER_BYTES + SUM_BYTES + 2 * name.length + 2 + r.payload.length)
  return sum
}

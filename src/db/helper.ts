/**
 * The process that owns one replica: the only file that imports lmdb, whose faults end a process (SIGBUS, SIGSEGV,
 * abort) or hang it. It decides nothing. It answers requests one at a time, in order, and ends when metad's end of
 * the channel closes; SIGINT and SIGTERM are metad's to handle, who tells us when the last commit is done.
 */
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs'
import { dirname } from 'node:path'
import { type RootDatabase, open as openLmdb } from 'lmdb'
import { checkReplica, deviceBytes, identityOf } from './check.js'
import { HEAD_KEY, type RawEntry } from './format.js'
import type { Fault, HelperAnswer, HelperReply, HelperRequest } from './wire.js'

/** Pages at the start of a device that make it a replica or not. */
const WIPE_BYTES = 65536
/** LMDB keeps this much of a new file for its own pages and the first records. */
const FILLER_SLACK = 128 * 1024

/** EPERM EIO ENXIO ENOMEM EACCES ENODEV ENFILE EMFILE ENOSPC EROFS, as lmdb reports them. */
const STORAGE_ERRNOS = new Set<unknown>([1, 5, 6, 12, 13, 19, 23, 24, 28, 30])

class Refusal extends Error {
  readonly fault: Fault
  constructor(fault: Fault) {
    super(fault.problem)
    this.fault = fault
  }
}
const refuse = (letter: Fault['letter'], problem: string, identity: string | null = null): never => {
  throw new Refusal({ letter, problem, damaged: identity !== null, identity })
}

interface Opened {
  readonly db: RootDatabase<Buffer, string>
  readonly path: string
  readonly identity: string
  /** A second look at the same storage: names may change under LMDB, this descriptor may not. */
  readonly fd: number
  readonly block: boolean
  bytes: number
  head: Buffer
}
let opened: Opened | null = null

const openDatabase = (path: string, readOnly: boolean, physical: number): RootDatabase<Buffer, string> =>
  openLmdb<Buffer, string>({
    path,
    noSubdir: true,
    encoding: 'binary',
    overlappingSync: false,
    compression: false,
    cache: false,
    maxReaders: 16,
    mapSize: Math.max(physical * 2, 4 * 1024 * 1024),
    readOnly,
  })

const syncDirectory = (path: string): void => {
  const fd = openSync(dirname(path), 'r')
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

const sizeOf = (fd: number, block: boolean): number => {
  const s = fstatSync(fd, { bigint: true })
  return block ? deviceBytes(s.rdev) : Number(s.size)
}

/** Whether the path still leads to the storage that is open, and the storage is still as long. */
const assertPlace = (o: Opened): void => {
  const now = identityOf(o.path)
  if (now !== o.identity) refuse('M', 'storage was replaced')
  if (sizeOf(o.fd, o.block) < o.bytes) refuse('D', 'file is truncated', o.identity)
}

const readAll = (db: RootDatabase<Buffer, string>): RawEntry[] => {
  const entries: RawEntry[] = []
  for (const { key, value } of db.getRange({ snapshot: true })) entries.push([key, Buffer.from(value)])
  return entries
}

const headIn = (entries: readonly RawEntry[]): Buffer =>
  Buffer.from(entries.find(([key]) => key === HEAD_KEY)?.[1] ?? [])

const closeOpened = async (): Promise<void> => {
  if (opened === null) return
  const o = opened
  opened = null
  await o.db.close()
  closeSync(o.fd)
}

/** Of the disk or its mode. Whatever else LMDB says about a file that can be read is about its contents. */
const isStorageError = (e: unknown): boolean => {
  const { code } = e as { code?: unknown }
  return typeof code === 'string' || STORAGE_ERRNOS.has(code)
}

const openReplica = async (path: string, block: boolean): Promise<HelperAnswer> => {
  await closeOpened()
  const s = statSync(path)
  if (block ? !s.isBlockDevice() : !s.isFile()) refuse('M', block ? 'not a block device' : 'not a regular file')
  const identity = identityOf(path)
  const checked = checkReplica(path)
  if (!checked.ok) return refuse('M', checked.error, identity)
  let readOnly = false
  try {
    closeSync(openSync(path, 'r+'))
  } catch (e) {
    const code = (e as NodeJS.ErrnoException).code
    if (code !== 'EROFS' && code !== 'EACCES' && code !== 'EPERM') throw e
    readOnly = true
  }
  const fd = openSync(path, 'r')
  try {
    const db = openDatabase(path, readOnly, checked.value.bytes)
    opened = { db, path, identity, fd, block, bytes: block ? 0 : checked.value.bytes, head: Buffer.alloc(0) }
    const entries = readAll(db)
    opened.head = headIn(entries)
    assertPlace(opened)
    return { identity, entries, readOnly }
  } catch (e) {
    if (opened === null) closeSync(fd)
    if (!(e instanceof Refusal) && !isStorageError(e)) refuse('D', e instanceof Error ? e.message : String(e), identity)
    throw e
  }
}

const writeZeroes = (fd: number, bytes: number): void => {
  const zeroes = Buffer.alloc(bytes)
  for (let at = 0; at < bytes;) at += writeSync(fd, zeroes, at, bytes - at, at)
  fsyncSync(fd)
}

/** LMDB dies on a full file system, so the space is asked for with plain writes first; its lock file needs some too. */
const emptyFile = (path: string, physical: number): void => {
  const fd = openSync(path, 'r+')
  try {
    const zeroes = Buffer.alloc(physical + FILLER_SLACK)
    for (let at = 0; at < zeroes.length;) at += writeSync(fd, zeroes, at, zeroes.length - at, at)
    ftruncateSync(fd, 0)
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

/** Whether the path may be taken: a device, a file that is ours to rebuild, an empty file, or nothing yet. */
const claim = (request: HelperRequest & { op: 'create' }): { readonly made: boolean } => {
  const { path, block, mode, identity } = request
  if (mode === 'rebuild') {
    if (identityOf(path) !== identity) refuse('M', 'storage was replaced')
    return { made: false }
  }
  if (block) return { made: false }
  if (existsSync(path)) {
    const s = statSync(path)
    if (!s.isFile() || s.size !== 0) refuse('F', 'file is not empty')
    return { made: false }
  }
  closeSync(openSync(path, 'wx', 0o600))
  return { made: true }
}

const emptyStorage = (path: string, block: boolean, physical: number): void => {
  if (!block) return emptyFile(path, physical)
  const fd = openSync(path, constants.O_RDWR | constants.O_EXCL)
  try {
    writeZeroes(fd, WIPE_BYTES)
  } finally {
    closeSync(fd)
  }
}

const create = async (request: HelperRequest & { op: 'create' }): Promise<HelperAnswer> => {
  await closeOpened()
  const { path, block, physical, entries } = request
  const { made } = claim(request)
  try {
    emptyStorage(path, block, physical)
    if (made) syncDirectory(path)
    const db = openDatabase(path, false, physical)
    const fd = openSync(path, 'r')
    opened = { db, path, identity: identityOf(path), fd, block, bytes: 0, head: headIn(entries) }
    // Space that is written now cannot be missing later: the free pages it leaves serve every commit.
    if (!block) {
      db.transactionSync(() => db.putSync('filler', Buffer.alloc(physical - FILLER_SLACK)))
      db.transactionSync(() => db.removeSync('filler'))
    }
    db.transactionSync(() => {
      for (const [key, value] of entries) db.putSync(key, Buffer.from(value))
    })
    fsyncSync(opened.fd)
    opened.bytes = block ? 0 : sizeOf(opened.fd, block)
    const checked = checkReplica(path)
    if (!checked.ok) return refuse('D', checked.error, opened.identity)
    const back = new Map(readAll(db))
    for (const [key, value] of entries) {
      if (Buffer.compare(back.get(key) ?? Buffer.alloc(0), value) !== 0) {
        return refuse('D', 'data not returned correctly from disk', opened.identity)
      }
    }
    assertPlace(opened)
    return { identity: opened.identity }
  } catch (e) {
    await closeOpened()
    if (made) for (const p of [path, `${path}-lock`]) if (existsSync(p)) unlinkSync(p)
    throw e
  }
}

const assertHead = (o: Opened, expect: Uint8Array): void => {
  const head = o.db.get(HEAD_KEY)
  if (head === undefined) refuse('F', 'head record is missing', o.identity)
  else if (Buffer.compare(head, expect) !== 0) refuse('D', 'head record is not the one last written', o.identity)
}

const write = (o: Opened, request: HelperRequest & { op: 'write' }): HelperAnswer => {
  assertPlace(o)
  o.db.transactionSync(() => {
    assertHead(o, request.expect)
    if (request.full) {
      const keep = new Set(request.puts.map(([key]) => key))
      for (const key of [...o.db.getKeys()]) if (!keep.has(key)) o.db.removeSync(key)
    }
    for (const key of request.removes) o.db.removeSync(key)
    for (const [key, value] of request.puts) o.db.putSync(key, Buffer.from(value))
  })
  assertPlace(o)
  const head = headIn(request.puts)
  if (head.length > 0) o.head = head
  if (!o.block) o.bytes = sizeOf(o.fd, false)
  return {}
}

const wipe = async (request: HelperRequest & { op: 'wipe' }): Promise<HelperAnswer> => {
  await closeOpened()
  const { path, block, identity } = request
  if (identityOf(path) !== identity) refuse('M', 'storage was replaced')
  if (block) {
    const fd = openSync(path, 'r+')
    try {
      writeZeroes(fd, WIPE_BYTES)
    } finally {
      closeSync(fd)
    }
  } else {
    unlinkSync(path)
    if (existsSync(`${path}-lock`)) unlinkSync(`${path}-lock`)
    syncDirectory(path)
  }
  return {}
}

const current = (): Opened => opened ?? refuse('W', 'replica is not open')

const serve = async (request: HelperRequest): Promise<HelperAnswer> => {
  switch (request.op) {
    case 'open':
      return openReplica(request.path, request.block)
    case 'create':
      return create(request)
    case 'write':
      return write(current(), request)
    case 'check':
      assertPlace(current())
      assertHead(current(), current().head)
      return {}
    case 'read': {
      assertPlace(current())
      const checked = checkReplica(current().path)
      if (!checked.ok) return refuse('D', checked.error, current().identity)
      return { entries: readAll(current().db) }
    }
    case 'wipe':
      return wipe(request)
    case 'close':
      await closeOpened()
      return {}
  }
}

const faultOf = (e: unknown, op: HelperRequest['op']): { fault: Fault; code: string | null } => {
  if (e instanceof Refusal) return { fault: e.fault, code: null }
  const error = e as NodeJS.ErrnoException
  const code = typeof error.code === 'string' ? error.code : null
  const gone = code === 'ENOENT' || code === 'ENOTDIR' || code === 'ENXIO' || code === 'ENODEV'
  // lmdb reports errno as a number.
  const full = code === 'ENOSPC' || (error.code as unknown) === 28 || code === 'EDQUOT'
  const letter = gone ? 'M' : full ? 'S' : op === 'open' || op === 'read' ? 'R' : 'W'
  return { fault: { letter, problem: error.message, damaged: false, identity: null }, code: full ? 'ENOSPC' : code }
}

const answer = async (seq: number, request: HelperRequest): Promise<void> => {
  let reply: HelperReply
  try {
    reply = { seq, ok: true, value: await serve(request) }
  } catch (e) {
    reply = { seq, ok: false, ...faultOf(e, request.op) }
  }
  if (process.connected) process.send?.(reply)
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGPIPE'] as const) process.on(signal, () => undefined)
process.on('disconnect', () => process.exit(0))
let last: Promise<void> = Promise.resolve()
process.on('message', (m: { seq: number; request: HelperRequest }) => {
  last = last.then(() => answer(m.seq, m.request))
})

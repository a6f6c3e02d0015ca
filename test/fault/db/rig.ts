/**
 * A database with real helper processes in a directory of its own, and the damages that are done to its replicas.
 * Every damage can be undone without changing which inode the replica is, so one database serves many scenarios.
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  closeSync,
  existsSync,
  ftruncateSync,
  fsyncSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Mddb } from '../../../src/db/mddb.js'
import type { Timing } from '../../../src/db/timing.js'
import type { DatabaseHealth, Json } from '../../../src/db/types.js'

export interface Random {
  /** An integer from 0 to below n. */
  below(n: number): number
}
export const randomOf = (seed: number): Random => {
  let x = seed >>> 0 || 1
  return {
    below: (n) => {
      x ^= x << 13
      x ^= x >>> 17
      x ^= x << 5
      x >>>= 0
      return x % n
    },
  }
}

/** SEED= replays a run; FULL=1 does every combination instead of a sample. */
export const FULL = process.env['FULL'] === '1'

export const FAST: Partial<Timing> = {
  tickMs: 40,
  checkMs: 80,
  scrubMs: 1_000_000,
  repairMs: 60,
  repairMaxMs: 200,
  retries: 2,
  retryMs: 30,
  requestMs: 5_000,
  createMs: 20_000,
}

export const subsetsOf = (n: number): readonly (readonly number[])[] =>
  Array.from({ length: 2 ** n }, (_, m) => Array.from({ length: n }, (_x, i) => i).filter((i) => (m >> i) & 1))

export interface Rig {
  readonly dir: string
  readonly etc: string
  readonly replicas: readonly string[]
  readonly notices: string[]
  readonly healths: DatabaseHealth[]
  open(timing?: Partial<Timing>): Promise<Mddb>
  remove(): void
}

export const makeRig = (n: number, base = '/tmp'): Rig => {
  const dir = mkdtempSync(join(base, 'mddb-fault-'))
  const etc = join(dir, 'etc')
  mkdirSync(etc)
  const notices: string[] = []
  const healths: DatabaseHealth[] = []
  return {
    dir,
    etc,
    replicas: Array.from({ length: n }, (_, i) => join(dir, `r${i}`)),
    notices,
    healths,
    open: (timing = {}) =>
      Mddb.open({
        configDir: etc,
        events: {
          notice: (level, text) => notices.push(`${level} ${text}`),
          healthChanged: (h) => healths.push(h),
        },
        timing: { ...FAST, ...timing },
      }),
    remove: () => rmSync(dir, { recursive: true, force: true }),
  }
}

export const must = <T>(r: { ok: true; value: T } | { ok: false; error: unknown }): T => {
  if (!r.ok) throw new Error(JSON.stringify(r.error))
  return r.value
}
export const set = (key: string, value: Json): ReadonlyMap<string, Json> => new Map([[key, value]])

export const makeReplicas = async (rig: Rig): Promise<Mddb> => {
  const db = await rig.open()
  must(
    await db.add(
      rig.replicas.map((path) => ({ path })),
      { force: true, count: 1, length: 1034 },
    ),
  )
  return db
}

export const allGood = async (db: Mddb): Promise<boolean> =>
  (await db.status()).every((r) => r.flags.includes('a') && r.flags.includes('u'))
export const eventually = async (what: () => Promise<boolean>, ms = 60_000): Promise<boolean> => {
  for (const end = Date.now() + ms; ;) {
    if (await what()) return true
    if (Date.now() > end) return false
    await sleep(40)
  }
}

const overwrite = (path: string, bytes: Buffer): void => {
  const fd = openSync(path, 'r+')
  ftruncateSync(fd, bytes.length)
  for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at, bytes.length - at, at)
  fsyncSync(fd)
  closeSync(fd)
}
export const hashOf = (path: string): string =>
  existsSync(path) ? createHash('sha256').update(readFileSync(path)).digest('hex') : 'absent'

export interface Damage {
  readonly name: string
  /** The storage is still the replica's own, so metad may write it anew. */
  readonly rebuilt: boolean
  /** Undo is returned. */
  readonly make: (path: string, random: Random) => () => void
}

const inPlace =
  (spoil: (bytes: Buffer, random: Random) => Buffer) =>
  (path: string, random: Random): (() => void) => {
    const before = readFileSync(path)
    overwrite(path, spoil(Buffer.from(before), random))
    return () => overwrite(path, before)
  }
const aside =
  (put: (path: string, random: Random) => void) =>
  (path: string, random: Random): (() => void) => {
    renameSync(path, `${path}.aside`)
    put(path, random)
    return () => {
      rmSync(path, { force: true })
      renameSync(`${path}.aside`, path)
    }
  }

export const missing: Damage = { name: 'missing', rebuilt: false, make: aside(() => undefined) }
export const replaced: Damage = {
  name: 'replaced',
  rebuilt: false,
  make: aside((path, random) => {
    // By text, by nothing, by a copy cut short: never by something that could pass for the replica.
    const cut = readFileSync(`${path}.aside`).subarray(0, 4096 * (1 + random.below(3)))
    const text = Buffer.from('not a state database\n'.repeat(1 + random.below(4000)))
    writeFileSync(path, [text, Buffer.alloc(0), cut][random.below(3)] ?? text)
  }),
}
export const truncated: Damage = {
  name: 'truncated',
  rebuilt: true,
  make: (path, random) => {
    const before = readFileSync(path)
    // Always shorter than what the newest tree needs: the file was filled once, its last pages may be free.
    truncateSync(path, [0, 1, 4096, 4096 * 2, 4096 * (1 + random.below(20)) + random.below(4096)][random.below(5)] ?? 0)
    return () => overwrite(path, before)
  },
}
export const zeroed: Damage = { name: 'zeroed', rebuilt: true, make: inPlace((b) => b.fill(0)) }
export const flipped: Damage = {
  name: 'bit-flipped',
  rebuilt: true,
  make: inPlace((b, random) => {
    for (let at = random.below(64); at < b.length; at += 64) b[at] = (b[at] ?? 0) ^ (1 << random.below(8))
    return b
  }),
}

const run = (...argv: string[]): boolean => spawnSync(argv[0] ?? '', argv.slice(1), { stdio: 'ignore' }).status === 0
/** chattr +i, because root ignores modes; where the file system cannot, a read-only bind mount of the file. */
export const readOnly: Damage = {
  name: 'read-only',
  rebuilt: false,
  make: (path) => {
    if (run('chattr', '+i', path)) return () => void run('chattr', '-i', path)
    if (run('mount', '--bind', path, path)) {
      if (run('mount', '-o', 'remount,ro,bind', path)) return () => void run('umount', path)
      run('umount', path)
    }
    throw new Error('cannot make a file read-only here')
  },
}
export const canReadOnly = (dir: string): boolean => {
  const probe = join(dir, 'probe')
  writeFileSync(probe, 'x')
  try {
    const undo = readOnly.make(probe, randomOf(1))
    let refused = false
    try {
      closeSync(openSync(probe, 'r+'))
    } catch {
      refused = true
    }
    undo()
    return refused
  } catch {
    return false
  } finally {
    rmSync(probe, { force: true })
  }
}

/**
 * Disks that fail on demand: files of a FUSE file system (test/tools/faultdisk) over images that stay
 * readable beside it. Commands take effect before tell() returns; see rules.h for their words.
 */
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { missing } from './foreign.js'
import type { Test } from './daemon.js'

const PROGRAM = join(import.meta.dirname, '../../../faultdisk/faultdisk')

/** Value for a test's `skip`. */
export const missingFaultDisk = (): string | false => {
  if (!existsSync('/dev/fuse')) return 'no /dev/fuse'
  if (!existsSync(PROGRAM)) return 'build/faultdisk is not built: libfuse3-dev was missing'
  return missing('fusermount3')
}

export interface DiskCounters {
  readonly reads: number
  readonly writes: number
  readonly syncs: number
  readonly zeroes: number
  readonly failed: number
  /** Requests that hang. */
  readonly held: number
  /** Sectors that a power cut could lose. */
  readonly unsynced: number
}

export interface FaultDisks {
  /** Where metad opens the disk. */
  path(name: string): string
  /** What the disk really holds: for comparisons behind its back. */
  image(name: string): string
  /** `d1 fail write EIO count=1`. @throws on a command it does not know */
  tell(command: string): void
  counters(name: string): DiskCounters
  /** The cable is pulled: every request fails from now on, for ever. */
  vanish(): void
}

const START_MILLIS = 60_000

/**
 * @param dir a directory of the test; `mnt` and the images are made in it
 * @param disks sizes in MiB by name
 */
export const startFaultDisks = async (
  t: Test,
  dir: string,
  disks: Readonly<Record<string, number>>,
): Promise<FaultDisks> => {
  const mount = join(dir, 'mnt')
  mkdirSync(mount, { recursive: true })
  const image = (name: string): string => join(dir, `${name}.img`)
  for (const [name, mebibytes] of Object.entries(disks)) {
    writeFileSync(image(name), '')
    truncateSync(image(name), mebibytes << 20)
  }
  const child = spawn(PROGRAM, [mount, ...Object.keys(disks).map((n) => `${n}=${image(n)}`)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let pulled = false
  const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  t.teardown(async () => {
    // What hangs would keep the mount busy.
    if (!pulled) for (const name of Object.keys(disks)) tell(`${name} ok`)
    child.kill('SIGTERM')
    await gone
    spawnSync('fusermount3', ['-uzq', mount])
  })
  await new Promise<void>((resolve, reject) => {
    const late = setTimeout(() => reject(new Error('faultdisk did not mount')), START_MILLIS)
    child.once('error', reject)
    child.once('exit', (status) => reject(new Error(`faultdisk ended with ${status}`)))
    child.stdout.once('data', () => {
      clearTimeout(late)
      resolve()
    })
  })
  const control = join(mount, 'control')
  const tell = (command: string): void => {
    try {
      writeFileSync(control, `${command}\n`, { flag: 'r+' })
    } catch (cause) {
      throw new Error(`faultdisk: ${command}`, { cause })
    }
  }
  return {
    path: (name) => join(mount, name),
    image,
    tell,
    counters: (name) => {
      const line = readFileSync(control, 'utf8')
        .split('\n')
        .find((l) => l.startsWith(`${name} `))
      const count = (key: string): number => Number(new RegExp(`\\b${key}=(\\d+)`).exec(line ?? '')?.[1] ?? NaN)
      return {
        reads: count('reads'),
        writes: count('writes'),
        syncs: count('syncs'),
        zeroes: count('zeroes'),
        failed: count('failed'),
        held: count('held'),
        unsynced: count('unsynced'),
      }
    },
    vanish: () => {
      pulled = true
      child.kill('SIGKILL')
    },
  }
}

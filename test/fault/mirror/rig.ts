/** A mirror on disks that fail on demand: d0 of d1 (disk a) and d2 (disk b), in step; disk s is free. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Metad, startMetad, type Test } from '../../tools/daemon.js'
import { type FaultDisks, startFaultDisks } from '../../tools/faultdisk.js'
import { NbdClient } from '../../tools/nbdclient.js'

export const MIB = 1 << 20
/** Of each disk, in MiB: as many dirty regions. */
export const SIZE = 32
const CONF =
  'io = direct\ncomponent_timeout = 2\ncomponent_read_errors = 3\nregion_clean_seconds = 1\nresync_checkpoint_seconds = 1\n'
/** Commands take their time on a busy machine. */
const SOON_MS = 60_000

export interface Rig {
  readonly metad: Metad
  readonly disks: FaultDisks
  readonly client: () => Promise<NbdClient>
  readonly stat: () => string
  readonly until: (what: string, condition: (stat: string) => boolean) => Promise<string>
}

export const rig = async (t: Test, conf = CONF): Promise<Rig> => {
  const dir = mkdtempSync(join(tmpdir(), 'mirror-'))
  const clients: NbdClient[] = []
  t.teardown(async () => {
    for (const c of clients) c.destroy()
    await sleep(0)
    rmSync(dir, { recursive: true, force: true })
  })
  const disks = await startFaultDisks(t, dir, { a: SIZE, b: SIZE, s: SIZE })
  const metad = await startMetad(t, { conf })
  metad.must('metadb', ['-a', '-f', join(metad.root, 'replicas')])
  metad.must('metainit', ['d1', '1', '1', disks.path('a')])
  metad.must('metainit', ['d2', '1', '1', disks.path('b')])
  metad.must('metainit', ['d0', '-m', 'd1'])
  metad.must('metattach', ['d0', 'd2'])
  const stat = (): string => metad.must('metastat', ['d0'])
  const until = async (what: string, condition: (stat: string) => boolean): Promise<string> => {
    for (const end = Date.now() + SOON_MS; ; await sleep(50)) {
      const text = stat()
      if (condition(text)) return text
      if (Date.now() > end) throw new Error(`${what}: not within ${SOON_MS} ms:\n${text}\n${metad.log()}`)
    }
  }
  const client = async (): Promise<NbdClient> => {
    const c = await NbdClient.open(metad.socket, { name: 'd0' })
    clients.push(c)
    return c
  }
  await until('in step', inStep)
  return { metad, disks, client, stat, until }
}

export const inStep = (stat: string): boolean =>
  !/State: (?!Okay)/.test(stat) && !/Resync|Maintenance|Last Erred/.test(stat)
export const pattern = (seed: number, bytes: number): Buffer => Buffer.alloc(bytes, Buffer.from([seed, seed ^ 0x55, 7]))
/** What a disk really holds. */
export const at = (image: string, offset: number, bytes: number): Buffer =>
  readFileSync(image).subarray(offset, offset + bytes)
export const answered = async (answer: Promise<{ readonly error: number }>): Promise<number> => (await answer).error

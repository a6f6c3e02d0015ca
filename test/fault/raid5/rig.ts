/** A RAID5 device on disks that fail on demand: d5 of a, b and c, initialised; disks s and t are free. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Metad, startMetad, type Test } from '../../tools/daemon.js'
import { type FaultDisks, startFaultDisks } from '../../tools/faultdisk.js'
import { NbdClient } from '../../tools/nbdclient.js'

export const MIB = 1 << 20
/** Of each disk, in MiB. */
export const SIZE = 24
export const CONF = 'io = direct\ncomponent_timeout = 2\ncomponent_read_errors = 3\nresync_checkpoint_seconds = 1\n'
const SOON_MS = 60_000

export interface Rig {
  readonly metad: Metad
  readonly disks: FaultDisks
  readonly client: () => Promise<NbdClient>
  readonly stat: () => string
  readonly until: (what: string, condition: (stat: string) => boolean) => Promise<string>
  /** metad is killed and started again. */
  readonly again: () => Promise<void>
}

export const isOkay = (stat: string): boolean =>
  /State: Okay/.test(stat) && !/Resync|Maintenance|Last Erred|Initial/.test(stat)

/** @param options of metainit, behind the three columns */
export const rig = async (t: Test, conf = CONF, options: readonly string[] = ['-i', '16k']): Promise<Rig> => {
  const dir = mkdtempSync(join(tmpdir(), 'raid5-'))
  const clients: NbdClient[] = []
  t.teardown(async () => {
    for (const c of clients) c.destroy()
    await sleep(0)
    rmSync(dir, { recursive: true, force: true })
  })
  const disks = await startFaultDisks(t, dir, { a: SIZE, b: SIZE, c: SIZE, s: SIZE, t: SIZE })
  const metad = await startMetad(t, { conf })
  metad.must('metadb', ['-a', '-f', join(metad.root, 'replicas')])
  metad.must('metainit', ['d5', '-r', ...['a', 'b', 'c'].map((d) => disks.path(d)), ...options])
  const stat = (): string => metad.must('metastat', ['d5'])
  const until = async (what: string, condition: (stat: string) => boolean): Promise<string> => {
    for (const end = Date.now() + SOON_MS; ; await sleep(50)) {
      const text = stat()
      if (condition(text)) return text
      if (Date.now() > end) throw new Error(`${what}: not within ${SOON_MS} ms:\n${text}\n${metad.log()}`)
    }
  }
  const client = async (): Promise<NbdClient> => {
    const c = await NbdClient.open(metad.socket, { name: 'd5' })
    clients.push(c)
    return c
  }
  const again = async (): Promise<void> => {
    for (const c of clients.splice(0)) c.destroy()
    await metad.kill9()
    await metad.start()
  }
  await until('initialised', isOkay)
  return { metad, disks, client, stat, until, again }
}

/** Another sequence for every seed and every block. */
export const pattern = (seed: number, bytes: number): Buffer => {
  const data = Buffer.alloc(bytes)
  for (let i = 0, x = seed * 2654435761; i < bytes; i += 4)
    data.writeUInt32LE((x = (x * 1664525 + 1013904223) >>> 0), i)
  return data
}
export const answered = async (answer: Promise<{ readonly error: number }>): Promise<number> => (await answer).error

/** One metadevice of a metad of its own, on disks that fail on demand. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Metad, startMetad, type Test } from './daemon.js'
import { type FaultDisks, startFaultDisks } from './faultdisk.js'
import { NbdClient } from './nbdclient.js'

/** Commands take their time on a busy machine. */
const SOON_MS = 60_000

export interface FaultRig {
  readonly metad: Metad
  readonly disks: FaultDisks
  readonly client: () => Promise<NbdClient>
  readonly stat: () => string
  readonly until: (what: string, condition: (stat: string) => boolean) => Promise<string>
  /** metad is killed and started again. */
  readonly again: () => Promise<void>
}

export interface FaultRigOptions {
  readonly unit: string
  /** MiB of each. */
  readonly disks: Readonly<Record<string, number>>
  readonly conf: string
}

/** With a replica; `unit` is for the caller to make. */
export const faultRig = async (t: Test, { unit, disks: sizes, conf }: FaultRigOptions): Promise<FaultRig> => {
  const dir = mkdtempSync(join(tmpdir(), `${unit}-`))
  const clients: NbdClient[] = []
  t.teardown(async () => {
    for (const c of clients) c.destroy()
    await sleep(0)
    rmSync(dir, { recursive: true, force: true })
  })
  const disks = await startFaultDisks(t, dir, sizes)
  const metad = await startMetad(t, { conf })
  metad.must('metadb', ['-a', '-f', join(metad.root, 'replicas')])
  const stat = (): string => metad.must('metastat', [unit])
  const until = async (what: string, condition: (stat: string) => boolean): Promise<string> => {
    for (const end = Date.now() + SOON_MS; ; await sleep(50)) {
      const text = stat()
      if (condition(text)) return text
      if (Date.now() > end) throw new Error(`${what}: not within ${SOON_MS} ms:\n${text}\n${metad.log()}`)
    }
  }
  const client = async (): Promise<NbdClient> => {
    const c = await NbdClient.open(metad.socket, { name: unit })
    clients.push(c)
    return c
  }
  const again = async (): Promise<void> => {
    for (const c of clients.splice(0)) c.destroy()
    await metad.kill9()
    await metad.start()
  }
  return { metad, disks, client, stat, until, again }
}

export const answered = async (answer: Promise<{ readonly error: number }>): Promise<number> => (await answer).error

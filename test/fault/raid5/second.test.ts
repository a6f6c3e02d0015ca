/**
 * Two columns fail under load, and come back, also with metad killed while they are out: what can be read is read,
 * nothing that was acknowledged is lost unless metad was killed, nor what was flushed then, and parity is right.
 */
import t, { type Test } from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { missingFaultDisk } from '../../tools/faultdisk.js'
import type { NbdClient } from '../../tools/nbdclient.js'
import { segmentsOf } from '../../tools/raid5columns.js'
import { seed } from '../../tools/seed.js'
import { Dice } from '../../tools/sim/schedule.js'
import { answered, isOkay, pattern, rig, type Rig } from './rig.js'

t.setTimeout(1_200_000)
const EIO = 5
const BLOCK = 4096
const SEGMENT = 16 << 10
const BLOCKS = 192
const WRITERS = 6
const COLUMNS = ['a', 'b', 'c'] as const
const dice = new Dice(seed)

interface Block {
  /** Versions: the last one that was asked for, acknowledged, flushed. */
  asked: number
  acked: number
  flushed: number
}

/** What clients have written, each block one version after another. */
class Area {
  readonly blocks: readonly Block[] = Array.from({ length: BLOCKS }, () => ({ asked: 0, acked: 0, flushed: 0 }))
  readonly #columns = segmentsOf(3, 3, BLOCKS).map(([, column]) => COLUMNS[column] ?? '')
  refused = 0

  /** The disk that a block lies on. */
  diskOf(block: number): string {
    return this.#columns[Math.floor((block * BLOCK) / SEGMENT)] ?? ''
  }
  static content(block: number, version: number): Buffer {
    return version === 0 ? Buffer.alloc(BLOCK) : pattern(block * 65_536 + version, BLOCK)
  }
  isRight(block: number, data: Buffer): boolean {
    const { asked, acked } = this.blocks[block] ?? { asked: 0, acked: 0 }
    for (let v = acked; v <= asked; v++) if (data.equals(Area.content(block, v))) return true
    return false
  }
  async write(nbd: NbdClient, block: number): Promise<void> {
    const b = this.blocks[block]
    if (b === undefined) throw new Error(`block ${block}`)
    const version = ++b.asked
    const error = await answered(nbd.write(BigInt(block * BLOCK), Area.content(block, version)))
    if (error === 0) b.acked = version
    else this.refused++
  }
  async flush(nbd: NbdClient): Promise<number> {
    const before = this.blocks.map((b) => b.acked)
    const error = await answered(nbd.flush())
    if (error === 0) this.blocks.forEach((b, i) => (b.flushed = Math.max(b.flushed, before[i] ?? 0)))
    return error
  }
  /** What was not flushed may be gone. */
  crashed(): void {
    for (const b of this.blocks) b.acked = b.flushed
  }
}

/** Each writer has blocks of its own, and now and then one of them flushes. */
const load = (nbd: NbdClient, area: Area): { stop: () => Promise<void> } => {
  let over = false
  const writer = async (own: number): Promise<void> => {
    while (!over) {
      const refused = area.refused
      await area.write(nbd, own + WRITERS * dice.below(BLOCKS / WRITERS))
      if (dice.chance(3)) await area.flush(nbd)
      await sleep(area.refused > refused ? 5 : 0)
    }
  }
  const all = Promise.all(Array.from({ length: WRITERS }, (_, i) => writer(i)))
  return {
    stop: async () => {
      over = true
      await all
    },
  }
}

/** @param lost disks whose blocks may be refused */
const readAll = async (
  t: Test,
  nbd: NbdClient,
  area: Area,
  what: string,
  lost: readonly string[] = [],
): Promise<number> => {
  let refused = 0
  const wrong: string[] = []
  for (let block = 0; block < BLOCKS; block++) {
    const { error, data } = await nbd.read(BigInt(block * BLOCK), BLOCK)
    if (error === EIO && lost.includes(area.diskOf(block))) refused++
    else if (error !== 0 || !area.isRight(block, data)) wrong.push(`${block} on ${area.diskOf(block)}: ${error}`)
  }
  t.strictSame(wrong, [], what)
  return refused
}

const inState = (r: Rig, state: string): readonly string[] =>
  COLUMNS.filter((d) => new RegExp(`/${d} +\\d+ +\\S+ +${state}`).test(r.stat()))

interface Case {
  /** What fails of the second column. */
  readonly second: 'write' | 'read,write' | 'all'
  readonly together: boolean
  readonly kill: boolean
}
const CASES: readonly Case[] = [
  { second: 'write', together: false, kill: false },
  { second: 'read,write', together: true, kill: false },
  { second: 'all', together: false, kill: false },
  { second: 'write', together: true, kill: true },
  { second: 'all', together: true, kill: true },
]

for (const { second, together, kill } of CASES)
  t.test(
    `two columns fail${together ? ' together' : ''}, the second one ${second}${kill ? ', and metad is killed' : ''}`,
    { skip: missingFaultDisk() },
    async (t) => {
      const r = await rig(t)
      const { metad, disks } = r
      const area = new Area()
      t.comment(`SEED=${seed}`)
      const nbd = await r.client()
      const before = load(nbd, area)
      await sleep(300 + dice.below(300))
      disks.tell(`a fail ${together ? second : 'all'} EIO`)
      if (!together) await r.until('one is out', (stat) => /Maintenance/.test(stat))
      disks.tell(`b fail ${second} EIO`)
      await r.until('both are out', (stat) => /Last Erred/.test(stat))
      await r.until('writes are refused', () => area.refused > 0)
      await before.stop()
      const [out = ''] = inState(r, 'Maintenance')
      const [last = ''] = inState(r, 'Last Erred')
      t.ok(out !== '' && last !== '' && out !== last, `${out} is out, ${last} Last Erred`)

      const unread = second === 'write' ? [] : [out, last]
      const refused = await readAll(t, nbd, area, 'what can be read is read', unread)
      t.comment(`${area.refused} writes and ${refused} reads were refused`)
      const flush = await area.flush(nbd)
      if (area.blocks.some((b) => b.flushed < b.acked)) t.equal(flush, EIO, 'the flush tells')

      if (kill) {
        await r.again()
        area.crashed()
        if (second === 'write') await readAll(t, await r.client(), area, 'what was flushed, before anything is back')
      }
      disks.tell(`${last} ok`)
      metad.must('metastat', ['-i'])
      const back = kill ? await r.client() : nbd
      await readAll(t, back, area, 'when one is back', [])
      const { refused: until } = area
      const after = load(back, area)
      disks.tell(`${out} ok`)
      metad.must('metareplace', ['-e', 'd5', disks.path(out)])
      await r.until('in step', isOkay)
      await after.stop()
      t.equal(area.refused, until, 'nothing is refused any more')
      t.equal(await area.flush(back), 0)
      await readAll(t, back, area, 'whole again')
      t.equal(metad.must('metasync', ['--verify', 'd5']), 'd5: parity is right\n')
      disks.tell(`${dice.pick(COLUMNS)} fail all EIO`)
      await readAll(t, back, area, 'without any one')
      for (const d of COLUMNS) disks.tell(`${d} ok`)
    },
  )

t.test(
  'a sync of the second column fails: it is not believed again, and a start loses nothing that was flushed',
  { skip: missingFaultDisk() },
  async (t) => {
    const r = await rig(t)
    const { metad, disks } = r
    const area = new Area()
    const nbd = await r.client()
    const before = load(nbd, area)
    await sleep(300)
    disks.tell('a fail all EIO')
    await r.until('one is out', (stat) => /Maintenance/.test(stat))
    await sleep(dice.below(200))
    disks.tell('b fail sync EIO')
    await r.until('both are out', (stat) => /Last Erred/.test(stat))
    await before.stop()
    disks.tell('b ok')
    metad.must('metastat', ['-i'])
    await area.write(nbd, 0)
    t.equal(await area.flush(nbd), EIO, 'nobody knows what that disk has lost')
    await readAll(t, nbd, area, 'all of it is read')
    t.match(r.stat(), /Last Erred/)
    await metad.stop()
    t.match(metad.log(), /"metadevice":"d5","msg":"not flushed: /)
    area.crashed()
    await metad.start()
    metad.must('metastat', ['-i'])
    const back = await r.client()
    await readAll(t, back, area, 'what was flushed')
    disks.tell('a ok')
    metad.must('metareplace', ['-e', 'd5', disks.path('a')])
    await r.until('in step', isOkay)
    t.equal(await area.flush(back), 0)
    t.equal(metad.must('metasync', ['--verify', 'd5']), 'd5: parity is right\n')
  },
)

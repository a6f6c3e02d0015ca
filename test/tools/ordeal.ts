/**
 * A metad over disks that fail on demand, and clients that keep a journal of every block: what the tests share
 * that break things cycle after cycle.
 *
 * The rule of all of them: at most one side of a mirror, one column of a RAID5 device, is in trouble at a time, so a
 * client never sees an error; after a kill a block is what it was or what was being written, and from its first read on
 * stays so; when metastat calls it Okay, the sides hold the same, byte for byte, and the parity of every line is right.
 *
 * SEED= replays the throws of a run; the instants of kills are the machine's. CYCLES= makes it longer.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import type { Test } from 'tap'
import { load, loadInBackground, type LoadRun } from '../../bench/lib/nbdload.js'
import { sleep, until } from '../../bench/lib/process.js'
import { Metad } from '../../bench/lib/servers.js'
import { ask } from '../../src/ctl/client.js'
import type { ComponentReport, MirrorReport, Raid5Report, StatReport } from '../../src/msg/report.js'
import { type FaultDisks, startFaultDisks } from './faultdisk.js'
import { readColumns, volumeOf, wrongParity } from './raid5columns.js'
import { Dice } from './sim/schedule.js'
import { seed } from './seed.js'

export const cyclesOr = (usual: number): number => Number(process.env['CYCLES'] ?? usual)

/** What is written by clients; the rest of a mirror is only ever copied. */
const SPAN = '6m'
const INTERLACE_BYTES = 16 << 10
const COLUMN_MIB = 8
const RESYNC_MS = 120_000

export interface Strike {
  /** The load has ended; requests that met the kill are counted. */
  readonly ended: Promise<LoadRun>
}

export class Ordeal {
  readonly dir: string
  readonly disks: FaultDisks
  readonly dice = new Dice(seed)
  readonly #t: Test
  readonly #conf: string
  #metad: Metad
  /** Of a request, as nbdload takes it. */
  #block = '4k'
  /** Requests without an answer because metad was killed. */
  cutOff = 0

  private constructor(t: Test, dir: string, disks: FaultDisks, conf: string, metad: Metad) {
    this.#t = t
    this.dir = dir
    this.disks = disks
    this.#conf = conf
    this.#metad = metad
  }

  /** @param sizes of the disks in MiB */
  private static async start(t: Test, sizes: Readonly<Record<string, number>>, conf: string): Promise<Ordeal> {
    const dir = mkdtempSync(join(tmpdir(), 'ordeal-'))
    t.teardown(() => {
      if (t.passing()) rmSync(dir, { recursive: true, force: true })
      else t.comment(`kept: ${dir}`)
    })
    // Its mount goes before the directory does.
    const disks = await startFaultDisks(t, dir, sizes)
    const ordeal = new Ordeal(t, dir, disks, conf, await Metad.start(join(dir, 'root'), conf))
    t.teardown(() => ordeal.#metad.stop('SIGKILL'))
    return ordeal
  }

  /**
   * d0 of d1 (a stripe of a1 and a2) and d2 (b1), in step, every block written once.
   * @param more further disks; spares of the pool, if there is to be one
   */
  static async mirror(
    t: Test,
    conf: string,
    more: Readonly<Record<string, number>> = {},
    pool: string | null = null,
  ): Promise<Ordeal> {
    const ordeal = await Ordeal.start(t, { a1: 4, a2: 4, b1: 8, ...more }, conf)
    const path = (disk: string): string => ordeal.disks.path(disk)
    const spared = pool === null ? [] : ['-h', pool]
    await ordeal.metad.configure([
      ...(pool === null ? [] : [['metainit', pool, ...Object.keys(more).map(path)]]),
      ['metainit', 'd1', '1', '2', path('a1'), path('a2'), '-i', `${INTERLACE_BYTES >> 10}k`, ...spared],
      ['metainit', 'd2', '1', '1', path('b1'), ...spared],
      ['metainit', 'd0', '-m', 'd1'],
    ])
    // A kill may leave them with different commits.
    await ordeal.run('metadb', '-a', ...['replica2', 'replica3'].map((r) => join(ordeal.dir, r)))
    ordeal.scribble('b1')
    await ordeal.run('metattach', 'd0', 'd2')
    await ordeal.inStep()
    await ordeal.#fill()
    return ordeal
  }

  /**
   * d0 of the disks c1, c2 ..., zeroed by metad, every block written once.
   * @param more further disks; spares of the pool, if there is to be one
   */
  static async raid5(
    t: Test,
    conf: string,
    columns: number,
    more: Readonly<Record<string, number>> = {},
    pool: string | null = null,
  ): Promise<Ordeal> {
    const names = Array.from({ length: columns }, (_, i) => `c${i + 1}`)
    const sizes = Object.fromEntries(names.map((name) => [name, COLUMN_MIB]))
    const ordeal = await Ordeal.start(t, { ...sizes, ...more }, conf)
    const path = (disk: string): string => ordeal.disks.path(disk)
    // A page, a segment of one column, a whole line.
    ordeal.#block = ordeal.dice.pick(['4k', '16k', `${((columns - 1) * INTERLACE_BYTES) >> 10}k`])
    for (const name of names) ordeal.scribble(name)
    await ordeal.metad.configure([
      ...(pool === null ? [] : [['metainit', pool, ...Object.keys(more).map(path)]]),
      [
        'metainit',
        'd0',
        '-r',
        ...names.map(path),
        '-i',
        `${INTERLACE_BYTES >> 10}k`,
        ...(pool === null ? [] : ['-h', pool]),
      ],
    ])
    await ordeal.run('metadb', '-a', ...['replica2', 'replica3'].map((r) => join(ordeal.dir, r)))
    await ordeal.inStep()
    await ordeal.#fill()
    return ordeal
  }

  get metad(): Metad {
    return this.#metad
  }
  get replica(): string {
    return join(this.#metad.root, 'replica1')
  }

  /** A command as typed. @throws when it fails */
  run(...words: readonly string[]): Promise<string> {
    return this.#metad.run(...words)
  }

  kill(): Promise<void> {
    return this.#metad.stop('SIGKILL')
  }

  async restart(): Promise<void> {
    this.#metad = await Metad.start(this.#metad.root, this.#conf)
  }

  async stat(): Promise<StatReport> {
    const reports: StatReport[] = []
    const asked = await ask(
      { op: 'stat', probe: false, names: [] },
      (reply) => {
        if (reply.reply === 'stat') reports.push(reply.report)
      },
      { socketPath: join(this.#metad.root, 'run/admin.sock') },
    )
    const [report] = reports
    if (!asked.ok || report === undefined) throw new Error(`metastat: ${JSON.stringify(asked)}`)
    return report
  }

  /** Every device is Okay, with everything that stands in it. */
  inStep(): Promise<void> {
    return this.eventually('every device is in step', isInStep)
  }

  /** The same, after metareplace -e of whatever is in Maintenance. @returns how many that were */
  async repaired(): Promise<number> {
    let enabled = 0
    await this.eventually('every device is repaired', async (report) => {
      for (const device of brokenOf(report)) {
        try {
          await this.run('metareplace', '-e', 'd0', device)
          enabled++
        } catch (e) {
          // A copy is not done yet, or the disk still holds requests.
          if (!/resync in progress|busy/i.test(String(e))) throw e
        }
      }
      return isInStep(report)
    })
    return enabled
  }

  /** @throws with the last report, when it does not come true */
  async eventually(what: string, condition: (report: StatReport) => boolean | Promise<boolean>): Promise<void> {
    let last: StatReport | undefined
    try {
      await until(what, async () => condition((last = await this.stat())), RESYNC_MS)
    } catch (cause) {
      throw new Error(`SEED=${seed}, ${this.dir}: ${JSON.stringify(last, null, 1)}`, { cause })
    }
  }

  get #journal(): readonly string[] {
    return ['--journal', join(this.dir, 'd0.journal')]
  }

  /** All of d0 was lost on purpose: it is written once more. */
  async refill(): Promise<void> {
    rmSync(join(this.dir, 'd0.journal'), { force: true })
    await this.#fill()
  }

  async #fill(): Promise<void> {
    const words = ['--init', '--bs', this.#block, '--span', SPAN, '--qd', '32', '--seed', `${seed}`]
    const { status, stderr } = await load([...this.#metad.target('d0').address, ...this.#journal, ...words])
    if (status !== 0) throw new Error(`cannot fill d0: ${stderr}`)
  }

  /** Resolves when requests are on their way. @param seconds at most; a kill ends it too */
  async load(seconds: number): Promise<Strike> {
    const { dice } = this
    const ready = join(this.dir, 'ready')
    rmSync(ready, { force: true })
    const { finished } = loadInBackground([
      ...this.#metad.target('d0').address,
      ...this.#journal,
      ...['--rw', dice.chance(50) ? 'mix' : 'write', '--qd', `${dice.pick([1, 8, 32])}`],
      ...['--connections', `${dice.pick([1, 2])}`, '--flush-every', `${dice.pick([3, 20, 100])}`],
      ...(dice.chance(25) ? ['--fua'] : []),
      // Requests that follow each other become whole lines.
      ...(dice.chance(20) ? ['--sequential'] : []),
      ...['--bs', this.#block, '--seed', `${dice.below(1 << 20)}`, '--seconds', `${seconds}`, '--warmup', '0'],
      ...['--tolerate-disconnect', '--ready-file', ready],
    ])
    let over = false
    void finished.then(() => (over = true))
    await until('the load runs', () => over || existsSync(ready))
    return { ended: finished }
  }

  /** Nobody saw an error, and what was read was right. */
  async unharmed(what: string, { ended }: Strike): Promise<void> {
    const { status, report, stderr } = await ended
    this.cutOff += report?.unanswered ?? 0
    if (status !== 0 || report === undefined || report.ioErrors > 0 || report.wrong.total > 0)
      this.#t.fail(`${what}: a client was harmed`, { seed, dir: this.dir, status, stderr, report })
  }

  /**
   * Every block is what it may be.
   * @param words `--settle`: from now on it is only what was read now
   */
  async sound(what: string, words: readonly string[] = [], keepsAnswered = true): Promise<void> {
    const address = this.#metad.target('d0').address
    this.#judge(what, await load([...address, ...this.#journal, '--verify', '--qd', '32', ...words]), keepsAnswered)
  }

  /** The same of a disk, behind metad's back. */
  async diskSound(what: string, disk: string): Promise<void> {
    this.#judge(what, await load([...this.#journal, '--verify', '--file', this.disks.image(disk)]), true)
  }

  #judge(what: string, { status, report, stderr }: LoadRun, keepsAnswered: boolean): void {
    const kept = !keepsAnswered || report?.verified.ackedMissing === 0
    if (status === 0 && report !== undefined && kept) this.#t.pass(what)
    else
      this.#t.fail(what, {
        ...{ seed, dir: this.dir, status, stderr },
        ...{ found: report?.wrong, verified: report?.verified },
      })
  }

  /** The disks of the sides of a mirror in step, whichever they are by now. Nothing may be written meanwhile. */
  async sidesEqual(what: string, mirror = 'd0'): Promise<void> {
    const report = await this.stat()
    const m = mirrorsOf(report).find((x) => x.name === mirror)
    if (m === undefined) throw new Error(`${what}: no ${mirror}`)
    const sides = m.submirrors.map((s) => this.#bytesOf(componentsOf(report, s.name), m.size * 512))
    const [first] = sides
    const differing = sides.findIndex((s) => first?.equals(s) !== true)
    const info = { seed, dir: this.dir, report }
    if (differing === -1) this.#t.pass(`${what}: the sides are equal, byte for byte`)
    else {
      const other = sides[differing]
      const at = first?.findIndex((b, i) => b !== other?.[i])
      this.#t.fail(`${what}: side ${differing} differs from byte ${at ?? '?'} on`, info)
    }
  }

  /** One row, striped by INTERLACE_BYTES. */
  #bytesOf(components: readonly ComponentReport[], bytes: number): Buffer {
    const images = components.map((c) => readFileSync(this.disks.image(basename(c.hotSpare ?? c.device))))
    const pieces: Buffer[] = []
    for (let at = 0, i = 0; at < bytes; at += INTERLACE_BYTES, i++) {
      const from = Math.floor(i / images.length) * INTERLACE_BYTES
      pieces.push(images[i % images.length]?.subarray(from, from + INTERLACE_BYTES) ?? Buffer.alloc(0))
    }
    return Buffer.concat(pieces).subarray(0, bytes)
  }

  /** What the disk is called in which a device lies. */
  diskNamed(device: string): string {
    return basename(device)
  }

  /** Images of what the columns are by now. */
  async #columns(): Promise<readonly string[]> {
    const unit = raid5Of(await this.stat())
    if (unit === undefined) throw new Error('no RAID5 device')
    return columnsOf(unit).map((c) => this.disks.image(this.diskNamed(c.hotSpare ?? c.device)))
  }

  /**
   * Of every line, on the disks themselves. All columns are in step.
   * @param atOnce metad has just started: nothing is on its way; otherwise what is in memory gets in place first
   */
  async parityRight(what: string, atOnce: boolean): Promise<void> {
    const images = await this.#columns()
    let wrong: readonly number[] = []
    const look = (): boolean => (wrong = wrongParity(readColumns(images.map((i) => readFileSync(i))))).length === 0
    if (atOnce) look()
    else await until('parity is right', look, RESYNC_MS).catch(() => undefined)
    if (wrong.length === 0) this.#t.pass(`${what}: the parity of every line is right`)
    else this.#t.fail(`${what}: wrong parity`, { seed, dir: this.dir, lines: wrong.slice(0, 20), of: wrong.length })
  }

  /** metad stops, and what the columns hold is right: all of them together, and what follows from all but one. */
  async columnsHold(): Promise<void> {
    const images = await this.#columns()
    await this.#metad.stop()
    const volume = join(this.dir, 'volume')
    for (let missing = 0; missing <= images.length; missing++) {
      writeFileSync(volume, volumeOf(readColumns(images.map((i, n) => (n === missing ? null : readFileSync(i))))))
      const what = missing < images.length ? `without column ${missing}` : 'from all columns'
      this.#judge(
        `read behind metad's back, ${what}`,
        await load([...this.#journal, '--verify', '--file', volume]),
        true,
      )
    }
  }

  /** Junk all over a disk that nothing is read from: what is not copied is found. */
  scribble(disk: string): void {
    const image = this.disks.image(disk)
    writeFileSync(image, Buffer.alloc(statSync(image).size, `junk ${this.dice.below(1000)} `), { flag: 'r+' })
  }

  /** Until the state database was written, or `ms` have passed. */
  async commit(ms: number): Promise<boolean> {
    const before = statSync(this.replica).mtimeMs
    for (const end = Date.now() + ms; Date.now() < end; await sleep(1))
      if (statSync(this.replica).mtimeMs !== before) return true
    return false
  }
}

export const mirrorsOf = (report: StatReport): readonly MirrorReport[] =>
  report.units.flatMap((u) => (u.kind === 'mirror' ? [u] : []))

export const raid5Of = (report: StatReport): Raid5Report | undefined => report.units.find((u) => u.kind === 'raid5')
export const columnsOf = (unit: Raid5Report): readonly ComponentReport[] => [
  ...unit.original.columns,
  ...(unit.attached?.columns ?? []),
]

export const isInStep = (report: StatReport): boolean =>
  mirrorsOf(report).every((m) => m.submirrors.every((s) => s.state === 'Okay')) &&
  report.units.every((u) => u.kind !== 'raid5' || (u.state === 'Okay' && columnsOf(u).every((c) => c.state === 'Okay')))

/** Of one stripe, or of all. */
export const componentsOf = (report: StatReport, stripe?: string): readonly ComponentReport[] =>
  report.units.flatMap((u) =>
    u.kind === 'stripe' && (stripe === undefined || u.name === stripe) ? u.rows.flatMap((r) => r.components) : [],
  )

/** What metareplace -e has to bring back. */
export const brokenOf = (report: StatReport): readonly string[] =>
  [...componentsOf(report), ...report.units.flatMap((u) => (u.kind === 'raid5' ? columnsOf(u) : []))].flatMap((c) =>
    /Maintenance|Last Erred/.test(c.state) ? [c.device] : [],
  )

/**
 * metad is killed with SIGKILL while clients write, again and again; after each start every block
 * holds what it may hold (promise P2).
 *
 * Permitted after a kill, block by block: the last flushed value or one written later; for a block
 * that was not in flight, exactly its last value. An answered write is kept too: the kernel has it.
 * The same holds for each side of a mirror that was in step, read from its file.
 *
 * CYCLES= and SEED= replay; CYCLES=30 takes about a minute.
 */
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { load, loadInBackground, type LoadRun } from '../../../bench/lib/nbdload.js'
import { sleep, until } from '../../../bench/lib/process.js'
import { Metad } from '../../../bench/lib/servers.js'
import { seed } from '../../tools/seed.js'

const CYCLES = Number(process.env['CYCLES'] ?? 30)
const FILE_BYTES = 16 << 20
const SPAN = 8 << 20
const DEVICES = ['d0', 'd1', 'd2', 'd3'] as const
const MIRROR = 'd3'

let state = seed
/** 0 to n - 1. */
const pick = (n: number): number => {
  state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) >>> 0
  return (state >>> 7) % n
}

const TIMEOUT_MS = 60_000 + CYCLES * 10_000
t.setTimeout(TIMEOUT_MS)

const dir = mkdtempSync(join(tmpdir(), 'kill9-'))
t.teardown(() => {
  if (t.passing()) rmSync(dir, { recursive: true, force: true })
  else t.comment(`kept: ${dir}`)
})

const image = (name: string, bytes = FILE_BYTES): string => {
  const path = join(dir, name)
  writeFileSync(path, '')
  truncateSync(path, bytes)
  return path
}
const sides = [image('side1'), image('side2')]
const journal = (name: string): string[] => ['--journal', join(dir, `${name}.journal`)]
const start = (): Promise<Metad> => Metad.start(join(dir, 'root'), 'log_level = info\n')

/** Nothing may be damaged, lost or invented, and what was answered is still there. */
const sound = (t: Test, what: string, run: LoadRun): void => {
  const { report } = run
  if (run.status === 0 && report !== undefined && (report.verified.ackedMissing ?? 0) === 0) t.pass(what)
  else
    t.fail(what, {
      seed,
      status: run.status,
      stderr: run.stderr,
      found: report?.wrong,
      verified: report?.verified,
    })
}

const verify = async (metad: Metad, name: string, ...more: readonly string[]): Promise<LoadRun> =>
  load([...metad.target(name).address, ...journal(name), '--verify', '--qd', '32', ...more])

const inStep = (metad: Metad): Promise<void> =>
  until('the mirror is in step again', async () => {
    const text = await metad.run('metastat', MIRROR)
    return !/resync/i.test(text)
  })

/** A different shape of load each time. */
const shape = (): string[] => {
  const connections = [1, 1, 2, 4][pick(4)] ?? 1
  return [
    ...['--rw', pick(3) === 0 ? 'mix' : 'write', '--qd', `${[1, 4, 16, 64][pick(4)] ?? 1}`],
    ...['--connections', `${connections}`, '--flush-every', `${[1, 7, 50, 400][pick(4)] ?? 1}`],
    ...(pick(4) === 0 ? ['--fua'] : []),
    ...(pick(4) === 0 ? ['--sequential'] : []),
    ...(pick(2) === 0 ? ['--structured'] : []),
    ...['--seed', `${pick(1 << 20)}`],
  ]
}

let unanswered = 0
let uncertain = 0
let written = 0

/** Loads every device at once, kills metad in the middle, and reports what was in flight. */
const strike = async (t: Test, metad: Metad, cycle: number): Promise<void> => {
  const runs: { name: string; ready: string; run: { finished: Promise<LoadRun> } }[] = []
  for (const name of DEVICES) {
    const ready = join(dir, `${name}.ready`)
    rmSync(ready, { force: true })
    const words = ['--seconds', '60', '--warmup', '0', '--tolerate-disconnect', '--ready-file', ready]
    const run = loadInBackground([...metad.target(name).address, ...journal(name), ...shape(), ...words])
    runs.push({ name, ready, run })
  }
  await until('all loads run', () => runs.every((r) => existsSync(r.ready)))
  await sleep(20 + pick(300))
  await metad.stop('SIGKILL')
  for (const { name, run } of runs) {
    const { status, report, stderr } = await run.finished
    if (status !== 0 || report === undefined || report.wrong.total > 0)
      t.fail(`cycle ${cycle}, ${name}: wrong before the kill`, { seed, status, stderr, report })
    unanswered += report?.unanswered ?? 0
    written += report?.writes ?? 0
  }
}

t.test(`${CYCLES} kills, SEED=${seed}`, { timeout: TIMEOUT_MS }, async (t) => {
  let metad = await start()
  t.teardown(() => metad.stop())
  await metad.configure([
    ['metainit', 'd0', '1', '1', image('one')],
    ['metainit', 'd1', '1', '4', image('s1'), image('s2'), image('s3'), image('s4'), '-i', '64k'],
    ['metainit', 'd2', '2', '1', image('c1', 6 << 20), '1', image('c2', 6 << 20)],
    ...sides.map((side, i) => ['metainit', `d3${i + 1}`, '1', '1', side]),
    ['metainit', MIRROR, '-m', 'd31'],
    ['metattach', MIRROR, 'd32'],
  ])
  await inStep(metad)
  for (const name of DEVICES) {
    const words = ['--init', '--bs', '4k', '--span', `${SPAN}`, '--qd', '32', '--seed', `${seed}`]
    const first = await load([...metad.target(name).address, ...journal(name), ...words])
    t.equal(first.status, 0, `${name} is filled`)
  }

  for (let cycle = 1; cycle <= CYCLES; cycle++) {
    // Most kills find the mirror in step; some find its resync under way.
    const both = pick(4) !== 0
    if (both) await inStep(metad)
    await strike(t, metad, cycle)
    for (const side of both ? sides : sides.slice(0, 1))
      sound(
        t,
        `cycle ${cycle}: ${side.slice(-5)} by itself`,
        await load([...journal(MIRROR), '--verify', '--file', side]),
      )
    metad = await start()
    for (const name of DEVICES) {
      const run = await verify(metad, name, '--settle')
      sound(t, `cycle ${cycle}: ${name}`, run)
      uncertain += run.report?.verified.uncertain ?? 0
    }
  }

  await inStep(metad)
  for (const name of DEVICES) {
    const run = await verify(metad, name)
    sound(t, `${name} stays what it was`, run)
  }
  await metad.stop()
  for (const side of sides) {
    const fd = openSync(side, 'r')
    fsyncSync(fd)
    closeSync(fd)
    sound(t, `${side.slice(-5)} is a full copy`, await load([...journal(MIRROR), '--verify', '--file', side]))
  }
  t.ok(readFileSync(sides[0] ?? '').equals(readFileSync(sides[1] ?? '')), 'both sides are equal byte for byte')
  t.comment(`${written} writes, ${unanswered} requests in flight at a kill, ${uncertain} blocks old or new`)
  t.ok(unanswered > 0 && written > CYCLES, 'the kills met requests in flight')
})

/** What the end of a RAID5 job makes of the record: only what is on stable storage, header included, and only of what it was about. */
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { err, ok } from '../../../src/base/result.js'
import { blocks } from '../../../src/base/units.js'
import { JobHosts } from '../../../src/daemon/jobs.js'
import { type Raid5JobParts, Raid5Hosting } from '../../../src/daemon/raid5jobs.js'
import { State } from '../../../src/daemon/state.js'
import type { Raid5Job } from '../../../src/dataplane/types.js'
import { outcome } from '../../../src/meta/operations.js'
import type { ResyncTarget } from '../../../src/meta/mirrorstate.js'
import type { Raid5Target } from '../../../src/meta/raid5jobs.js'
import { withUnits } from '../../../src/meta/tree.js'
import type { Column, ColumnState, Raid5Unit, Slice, Tree } from '../../../src/meta/types.js'
import { metaError } from '../../../src/msg/errors.js'
import type { ComponentId } from '../../../src/plan/types.js'
import type { End, Job, ResyncHost, Target } from '../../../src/resync/scheduler.js'
import { HOST_FILES } from '../../../src/sys/hostfiles.js'
import { name, treeOf } from '../meta/world.js'
import { Gate, settled } from './gate.js'

const D5 = name('d5')
const raid5In = (tree: Tree): Raid5Unit => {
  const u = tree.get(D5)
  if (u?.kind !== 'raid5') throw new Error('no d5')
  return u
}
const MADE = treeOf(['d5 -r /disks/a /disks/b /disks/c'])
const withColumns = (tree: Tree, change: (c: Column, i: number) => Column): Tree => {
  const u = raid5In(tree)
  return withUnits(tree, [{ ...u, columns: u.columns.map(change) }])
}
const withStates = (...states: ColumnState[]): Tree =>
  withColumns(MADE, (c, i) => ({ ...c, state: states[i] ?? c.state }))
const statesOf = (tree: Tree): string =>
  raid5In(tree)
    .columns.map((c) => c.state)
    .join(' ')

const rig = (t: Test, tree: Tree) => {
  const dir = mkdtempSync(join(tmpdir(), 'raid5jobs-'))
  const fds: number[] = []
  t.teardown(() => {
    for (const fd of fds) closeSync(fd)
    rmSync(dir, { recursive: true })
  })
  const files = new Map<string, number>()
  for (const c of raid5In(tree).columns) {
    const path = join(dir, c.path.slice(-1))
    writeFileSync(path, '')
    truncateSync(path, 1 << 20)
    const fd = openSync(path, 'r+')
    fds.push(fd)
    files.set(c.path, fd)
  }
  const gate = Gate.of(tree)
  const state = new State(gate)
  state.load()
  const log: string[] = []
  const jobs: Raid5Job[] = []
  const refused = new Set<string>()
  const missing = new Set<string>()
  const parts = {
    config: { componentTimeoutSeconds: 0, resyncBytesPerSecond: 7, resyncCheckpointSeconds: 2 },
    state,
    engine: { raid5Job: (_: number, job: Raid5Job) => jobs.push(job), cancelResync: () => log.push('cancel') },
    metadevices: { deviceOf: () => 4 },
    components: {
      acquire: (s: Slice) => {
        const fd = files.get(s.path)
        if (fd === undefined || refused.has(s.path)) return Promise.resolve(err(metaError('sys', s.name, 'I/O error')))
        return Promise.resolve(ok({ fd, align: 512 }))
      },
      release: () => undefined,
      isOf: (id: ComponentId, s: Slice) => s.path.charCodeAt(s.path.length - 1) === Number(id),
    },
    files: HOST_FILES,
    serving: {
      open: () => Promise.resolve(ok(undefined)),
      isMissing: (c: Slice) => missing.has(c.path),
      waits: () => false,
      isPictured: () => false,
      isShown: () => true,
      show: () => Promise.resolve(true),
      follow: () => {
        log.push(`follow ${statesOf(state.tree)}`)
        return Promise.resolve()
      },
    },
    log: pino({ level: 'silent' }),
    notice: (_: string, text: string) => log.push(text),
    readOnly: () => false,
    bufferBlocks: () => 64,
    rested: () => undefined,
  } as unknown as Raid5JobParts
  const header = (column: 'a' | 'b' | 'c'): boolean => {
    const c = raid5In(tree).columns.find((own) => own.path.endsWith(column))
    const at = ((c?.offset ?? 0) + (c?.start ?? 0)) * 512
    return readFileSync(join(dir, column))
      .subarray(at, at + 512)
      .some((b) => b !== 0)
  }
  return { gate, state, hosting: new Raid5Hosting(parts), log, jobs, header, refused, missing }
}
const end = (result: End['outcome'], done: number, component: string | null = null): End => ({
  outcome: result,
  errno: result === 'failed' ? 5 : 0,
  done: blocks(done),
  component: component === null ? null : (component.charCodeAt(0) as ComponentId),
  mismatches: 0,
})
const wanted = async (hosting: Raid5Hosting, tried: readonly Raid5Target[] = []): Promise<Job<Raid5Target>> => {
  const job = await hosting.next(D5, tried)
  if (job === undefined) throw new Error('no job')
  return job
}

t.test('zeroes: headers are on the columns before the commit that says okay', async (t) => {
  const { gate, state, hosting, log, jobs, header } = rig(t, withStates('init', 'init', 'init'))
  const job = await wanted(hosting)
  hosting.start(D5, { kind: 'copy', job }, 9, job.from)
  t.match(jobs, [{ job: 9, kind: 'initialise', columns: [0, 1, 2], from: 0, bufferBlocks: 64, checkpointMillis: 2000 }])
  t.notOk(header('a'))
  const over = hosting.ended(D5, job, end('done', 100), 'done')
  for (const limit = Date.now() + 10_000; gate.waiting.length === 0 && Date.now() < limit;) await settled()
  t.ok(header('a') && header('b') && header('c'))
  t.equal(statesOf(state.tree), 'init init init')
  await gate.let(true)
  await over
  t.same(log, ['follow okay okay okay'])
})

t.test('what joins or is copied to is waited for while it is away: the plan has no place for it', async (t) => {
  const { hosting, missing } = rig(t, withStates('init', 'init', 'init'))
  missing.add('/disks/b')
  t.equal(await hosting.next(D5, []), undefined)
  missing.clear()
  t.match((await wanted(hosting)).target, { kind: 'initialise', columns: [0, 1, 2] })
})

t.test(
  'a column that cannot have its header failed, whatever the engine says: nobody would try it again',
  async (t) => {
    for (const [before, path, after] of [
      [['okay', 'resync', 'okay'], '/disks/b', 'okay erred okay'],
      [['init', 'init', 'init'], '/disks/c', 'init init initErred'],
    ] as const) {
      const { gate, state, hosting, refused } = rig(t, withStates(...before))
      refused.add(path)
      const job = await wanted(hosting)
      hosting.start(D5, { kind: 'copy', job }, 1, job.from)
      const over = hosting.ended(D5, job, end('done', 100), 'done')
      for (const limit = Date.now() + 10_000; gate.waiting.length === 0 && Date.now() < limit;) await settled()
      await gate.let(true)
      await over
      t.equal(statesOf(state.tree), after)
    }
  },
)

t.test('what failed claims nothing above the last checkpoint', async (t) => {
  const { gate, state, hosting } = rig(t, withStates('okay', 'resync', 'okay'))
  const job = await wanted(hosting)
  t.match(job, { target: { kind: 'regenerate', column: 1 }, from: 0 })
  hosting.start(D5, { kind: 'copy', job }, 1, job.from)
  hosting.checkpoint(D5, job, blocks(640))
  await gate.let(true)
  t.match(raid5In(state.tree).checkpoint, { column: 1, done: 640 })
  const over = hosting.ended(D5, job, end('failed', 4096, 'a'), 'failed')
  await settled()
  if (gate.waiting.length > 0) await gate.let(true)
  await over
  t.match(raid5In(state.tree).checkpoint, { column: 1, done: 640 })
  t.equal(statesOf(state.tree), 'okay resync okay', "the source's error is decided by itself")
})

t.test('a copy has checkpoints, and its end claims nothing above the last one', async (t) => {
  const [by] = raid5In(MADE).columns
  if (by === undefined) throw new Error('no column')
  const to = { ...by, name: '/disks/n', path: '/disks/n', identity: 'n', state: 'resync' as const }
  const tree = withUnits(MADE, [
    { ...raid5In(withStates('okay', 'okay', 'okay')), copy: { of: 1, to, done: blocks(0) } },
  ])
  const { gate, state, hosting, jobs } = rig(t, tree)
  const job = await wanted(hosting)
  hosting.start(D5, { kind: 'copy', job }, 1, job.from)
  t.match(jobs, [{ kind: 'copy', columns: [1], from: 0, checkpointMillis: 2000 }])
  hosting.checkpoint(D5, job, blocks(640))
  await gate.let(true)
  t.equal(raid5In(state.tree).copy?.done, 640)
  await hosting.ended(D5, job, end('cancelled', 4096), 'cancelled')
  t.equal(raid5In(state.tree).copy?.done, 640)
  t.equal((await wanted(hosting)).from, 640)
})

t.test('a target that failed, or is other storage by now, is not called in step', async (t) => {
  const { gate, state, hosting } = rig(t, withStates('okay', 'resync', 'okay'))
  const job = await wanted(hosting)
  hosting.start(D5, { kind: 'copy', job }, 1, job.from)
  const replaced = state.perform((tree) => {
    const other = withColumns(tree, (c, i) => (i === 1 ? { ...c, erredOrder: c.erredOrder + 1, identity: 'other' } : c))
    return ok(outcome(tree, { put: [raid5In(other)] }))
  })
  await gate.let(true)
  await replaced
  await hosting.ended(D5, job, end('done', 100), 'done')
  t.equal(statesOf(state.tree), 'okay resync okay')
  t.equal(gate.waiting.length, 0, 'nothing was committed')
})

t.test('a stop records nothing; a comparison never repairs unasked, metasync -p does', async (t) => {
  const { gate, hosting, jobs, state } = rig(t, withStates('okay', 'okay', 'okay'))
  hosting.start(D5, { kind: 'verify', repair: false }, 1, blocks(0))
  hosting.start(D5, { kind: 'verify', repair: true }, 2, blocks(8))
  const regen = state.perform((tree) => ok(outcome(tree, { put: [{ ...raid5In(tree), regen: true }] })))
  await gate.let(true)
  await regen
  const job = await wanted(hosting)
  hosting.start(D5, { kind: 'copy', job }, 3, job.from)
  t.same(
    jobs.map((j) => [j.kind, j.repair, j.from]),
    [
      ['parity', false, 0],
      ['parity', true, 8],
      ['parity', true, 0],
    ],
  )
  await hosting.ended(D5, job, end('cancelled', 50), 'stopped')
  t.equal(gate.waiting.length, 0)
  t.equal(raid5In(state.tree).regen, true)
})

t.test('each kind is asked about its own', async (t) => {
  const log: string[] = []
  const host = <T extends Target>(kind: string, found: Job<T>): ResyncHost<T> => ({
    next: (unit, tried) => {
      log.push(`${kind} next ${unit} ${tried.map((x) => x.kind).join()}`)
      return Promise.resolve(found)
    },
    ended: (unit, job) => Promise.resolve(void log.push(`${kind} ended ${unit} ${job.target.kind}`)),
    checkpoint: (unit, job) => log.push(`${kind} checkpoint ${unit} ${job.target.kind}`),
    start: (unit, work) => log.push(`${kind} start ${unit} ${work.kind}`) > 0,
    cancel: (unit) => log.push(`${kind} cancel ${unit}`),
    broke: () => undefined,
    rested: () => undefined,
  })
  const side: Job<ResyncTarget> = { target: { kind: 'full', slot: 1 }, from: blocks(0), identity: '' }
  const column: Job<Raid5Target> = { target: { kind: 'parity' }, from: blocks(0), identity: '' }
  const hosts = new JobHosts(host('mirror', side), host('raid5', column), (u) => (u === D5 ? 'raid5' : 'mirror'))
  const D0 = name('d0')
  await hosts.next(D5, [side.target, column.target])
  await hosts.next(D0, [side.target, column.target])
  hosts.start(D5, { kind: 'verify', repair: false }, 1, blocks(0))
  hosts.start(D0, { kind: 'copy', job: side }, 2, blocks(0))
  hosts.checkpoint(D5, column, blocks(1))
  await hosts.ended(D0, side, end('done', 1), 'done')
  hosts.cancel(D5)
  t.same(log, [
    'raid5 next d5 parity',
    'mirror next d0 full',
    'raid5 start d5 verify',
    'mirror start d0 copy',
    'raid5 checkpoint d5 parity',
    'mirror ended d0 full',
    'raid5 cancel d5',
  ])
})

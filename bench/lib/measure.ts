/**
 * One section: files made, every contender started on them, then rounds in which all contenders take
 * turns at each workload, so that a change of the machine's mood hits all of them alike.
 */
import { randomBytes } from 'node:crypto'
import { closeSync, fsyncSync, mkdirSync, openSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { load, type LoadReport } from './nbdload.js'
import { must, sleep } from './process.js'
import {
  engineOnly,
  installed,
  Metad,
  nbdkitFile,
  nbdkitNull,
  nbdServer,
  qemuQuorum,
  qemuStorageDaemon,
  type Running,
  type Target,
} from './servers.js'
import type { Contender, Section, Workload } from './workloads.js'

export interface Pace {
  readonly rounds: number
  readonly seconds: number
  readonly warmup: number
  /** The data plane without metad. */
  readonly engineOnly: boolean
}
export interface Cell {
  readonly section: string
  readonly workload: string
  readonly contender: Contender
  /** One per round, same order for every contender. */
  readonly runs: readonly LoadReport[]
}
export interface Places {
  readonly tmpfs: string
  readonly disk: string
}

const OURS: readonly Contender[] = ['single', 'stripe4', 'concat4', 'mirror2']
const PROGRAM: Partial<Record<Contender, string>> = {
  nbdkit: 'nbdkit',
  null: 'nbdkit',
  'nbd-server': 'nbd-server',
  qemu: 'qemu-storage-daemon',
  'qemu-direct': 'qemu-storage-daemon',
  'qemu-quorum': 'qemu-storage-daemon',
}

/** Real blocks, not holes: reading a hole or filling one is another benchmark. */
export const makeFile = (path: string, megabytes: number): string => {
  const chunk = randomBytes(1 << 20)
  const fd = openSync(path, 'w')
  for (let i = 0; i < megabytes; i++) writeSync(fd, chunk)
  fsyncSync(fd)
  closeSync(fd)
  return path
}

interface Files {
  readonly one: string
  readonly stripe: readonly string[]
  readonly concat: readonly string[]
  readonly sides: readonly string[]
}

const makeFiles = (dir: string, section: Section): Files => {
  const has = (c: Contender): boolean => section.contenders.includes(c)
  const make = (name: string, n: number, megabytes: number): string[] =>
    Array.from({ length: n }, (_, i) => makeFile(join(dir, `${name}${i + 1}`), megabytes))
  const mb = section.fileMegabytes
  return {
    one: makeFile(join(dir, 'one'), mb),
    stripe: has('stripe4') ? make('stripe', 4, mb / 4) : [],
    concat: has('concat4') ? make('concat', 4, mb / 4) : [],
    sides: has('mirror2') || has('qemu-quorum') ? make('side', 2, mb) : [],
  }
}

/** Which metainit lines give each of our contenders, and its name. */
const DEVICES: readonly (readonly [Contender, string, (f: Files) => readonly (readonly string[])[]])[] = [
  ['single', 'd0', (f) => [['metainit', 'd0', '1', '1', f.one]]],
  ['stripe4', 'd1', (f) => [['metainit', 'd1', '1', '4', ...f.stripe, '-i', '64k']]],
  ['concat4', 'd2', (f) => [['metainit', 'd2', '4', ...f.concat.flatMap((c) => ['1', c])]]],
  [
    'mirror2',
    'd3',
    (f) => [
      ...f.sides.map((side, i) => ['metainit', `d3${i + 1}`, '1', '1', side]),
      ['metainit', 'd3', '-m', 'd31', 'd32'],
    ],
  ],
]

const SHAPES: Partial<Record<Contender, readonly [string, (f: Files) => readonly string[]]>> = {
  single: ['concat', (f) => [f.one]],
  stripe4: ['stripe', (f) => f.stripe],
  concat4: ['concat', (f) => f.concat],
  mirror2: ['mirror', (f) => f.sides],
}

/** Every contender of the section that can run here, already serving. */
const startAll = async (
  section: Section,
  dir: string,
  files: Files,
  pace: Pace,
  skip: (why: string) => void,
): Promise<{ readonly targets: Map<Contender, Target>; readonly stop: () => Promise<void> }> => {
  const targets = new Map<Contender, Target>()
  const stops: (() => Promise<void>)[] = []
  const stop = async (): Promise<void> => {
    for (const one of stops.reverse()) await one()
  }
  const ours = DEVICES.filter(([c]) => section.contenders.includes(c))
  try {
    if (pace.engineOnly)
      for (const [contender] of ours) {
        const [shape, of] = SHAPES[contender] ?? ['', () => []]
        const running = await engineOnly(dir, shape, of(files), section.io === 'direct' ? ['--direct'] : [])
        stops.push(() => running.stop())
        targets.set(contender, running.target)
      }
    else if (ours.length > 0) {
      const metad = await Metad.start(join(dir, 'root'), `io = ${section.io}\nlog_level = warn\n`)
      stops.push(() => metad.stop())
      await metad.configure(ours.flatMap(([, , commands]) => commands(files)))
      for (const [contender, name] of ours) targets.set(contender, metad.target(name))
    }
    const starts: Partial<Record<Contender, () => Promise<Running>>> = {
      nbdkit: () => nbdkitFile(dir, files.one),
      'nbd-server': () => nbdServer(dir, files.one),
      qemu: () => qemuStorageDaemon(dir, files.one, false),
      'qemu-direct': () => qemuStorageDaemon(dir, files.one, true),
      'qemu-quorum': () => qemuQuorum(dir, files.sides),
      null: () => nbdkitNull(dir),
    }
    for (const contender of section.contenders.filter((c) => !OURS.includes(c))) {
      const start = starts[contender]
      const program = PROGRAM[contender] ?? ''
      if (start === undefined || !(await installed(program))) {
        skip(`${contender}: ${program} is not installed`)
        continue
      }
      const running = await start()
      stops.push(() => running.stop())
      targets.set(contender, running.target)
    }
  } catch (e) {
    await stop()
    throw e
  }
  return { targets, stop }
}

/** Written blocks reach the disk before somebody else is measured; cold sections also forget them. */
const settle = async (section: Section, workload: Workload, files: readonly string[]): Promise<void> => {
  if (section.place === 'disk' && (workload.writes || section.cold))
    for (const file of files) {
      const fd = openSync(file, 'r')
      fsyncSync(fd)
      closeSync(fd)
    }
  if (section.cold)
    for (const file of files)
      await must(['dd', `of=${file}`, 'oflag=nocache', 'conv=notrunc,fdatasync', 'count=0', 'status=none'])
}

export const measureSection = async (
  section: Section,
  workloads: readonly Workload[],
  places: Places,
  pace: Pace,
  say: (line: string) => void,
): Promise<readonly Cell[]> => {
  const dir = join(section.place === 'tmpfs' ? places.tmpfs : places.disk, section.id)
  mkdirSync(dir, { recursive: true })
  const files = makeFiles(dir, section)
  const all = [files.one, ...files.stripe, ...files.concat, ...files.sides]
  const { targets, stop } = await startAll(section, dir, files, pace, say)
  const runs = new Map<string, LoadReport[]>()
  try {
    for (let round = 0; round < pace.rounds; round++)
      for (const workload of workloads) {
        const order = [...targets.keys()]
        order.push(...order.splice(0, round % Math.max(order.length, 1)))
        const line: string[] = []
        for (const contender of order) {
          const target = targets.get(contender)
          if (target === undefined) continue
          await settle(section, workload, all)
          const report = await measure(workload, target, section.cold ? { ...pace, warmup: 0 } : pace, round, contender)
          const key = `${workload.name}\0${contender}`
          runs.set(key, [...(runs.get(key) ?? []), report])
          line.push(`${contender} ${Math.round(workload.bytes ? report.megabytesPerSecond : report.iops)}`)
        }
        say(`${section.id} ${round + 1}/${pace.rounds} ${workload.name}: ${line.join('  ')}`)
      }
  } finally {
    await stop()
    rmSync(dir, { recursive: true, force: true })
  }
  return [...runs].map(([key, list]) => {
    const [workload = '', contender = ''] = key.split('\0')
    return { section: section.id, workload, contender: contender as Contender, runs: list }
  })
}

const measure = async (
  workload: Workload,
  target: Target,
  pace: Pace,
  round: number,
  contender: Contender,
): Promise<LoadReport> => {
  const { status, report, stderr } = await load([
    ...target.address,
    ...workload.args,
    ...['--seconds', `${pace.seconds}`, '--warmup', `${pace.warmup}`],
    ...['--server-pid', `${target.pid}`, '--seed', `${round + 1}`],
  ])
  if (status !== 0 || report === undefined)
    throw new Error(`${contender}, ${workload.name}: nbdload status ${status} ${stderr}${JSON.stringify(report)}`)
  // A server that is still closing must not share the cores with the next one.
  await sleep(20)
  return report
}

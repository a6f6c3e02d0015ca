/**
 * The table of what is measured: sections share files and servers, workloads are loads, goals are the
 * least permitted ratio ours/peer (and the most permitted ratio of server CPU per request).
 */

/** `ours` is the device that the section is about; composites compare several of our own. */
export type Contender =
  | 'single'
  | 'stripe4'
  | 'concat4'
  | 'mirror2'
  | 'nbdkit'
  | 'nbd-server'
  | 'qemu'
  | 'qemu-direct'
  | 'qemu-quorum'
  | 'null'

export interface Goal {
  readonly of: Contender
  readonly against: Contender
  readonly least: number
  /** Ratio of server CPU per request. */
  readonly cpuMost?: number
}
export interface Workload {
  readonly name: string
  readonly args: readonly string[]
  readonly writes: boolean
  /** Compared by bytes rather than requests per second. */
  readonly bytes: boolean
  readonly goals: readonly Goal[]
}
export interface Section {
  readonly id: string
  readonly title: string
  readonly place: 'tmpfs' | 'disk'
  readonly io: 'buffered' | 'direct'
  /** Page cache dropped before every measurement. */
  readonly cold: boolean
  readonly fileMegabytes: number
  readonly contenders: readonly Contender[]
  /** Columns are ratios of these... */
  readonly ours: readonly Contender[]
  readonly workloads: readonly Workload[]
}

type Versus = readonly (readonly [Contender, number, number?])[]

const point = (
  of: Contender,
  name: string,
  args: string,
  writes: boolean,
  bytes: boolean,
  versus: Versus,
): Workload => ({
  name,
  args: args.split(' '),
  writes,
  bytes,
  goals: versus.map(([against, least, cpuMost]) => ({
    of,
    against,
    least,
    ...(cpuMost === undefined ? {} : { cpuMost }),
  })),
})
const read4k = (name: string, shape: string, versus: Versus): Workload =>
  point('single', `4K read ${name}`, `--bs 4k ${shape}`, false, false, versus)
/** To a part of the file that is soon dirty as a whole: dirtying a clean page costs the file system more than the write. */
const HOT = '--span 64m'
const write4k = (name: string, shape: string, versus: Versus): Workload =>
  point('single', `4K write ${name}`, `--bs 4k --rw write ${HOT} ${shape}`, true, false, versus)
const big = (rw: 'read' | 'write', versus: Versus): Workload =>
  point('single', `1M ${rw} QD8`, `--bs 1m --qd 8 --sequential --rw ${rw}`, rw === 'write', true, versus)

const ONE_FILE: readonly Workload[] = [
  read4k('QD1', '--qd 1', [
    ['nbdkit', 1.5],
    ['qemu', 1.5],
  ]),
  read4k('QD16', '--qd 16', [
    ['nbdkit', 1.8],
    ['qemu', 2],
  ]),
  read4k('QD64', '--qd 64', [
    ['nbdkit', 2.5],
    ['qemu', 3.5],
  ]),
  read4k('QD16 x4', '--qd 16 --connections 4', [
    ['nbdkit', 2.5],
    ['qemu', 4],
  ]),
  write4k('QD1', '--qd 1', [
    ['nbdkit', 1.4],
    ['qemu', 2],
  ]),
  write4k('QD16', '--qd 16', [
    ['nbdkit', 1.8],
    ['qemu', 3],
  ]),
  write4k('QD64', '--qd 64', [
    ['nbdkit', 2.4],
    ['qemu', 4],
  ]),
  big('read', [
    ['nbdkit', 1.4, 0.6],
    ['qemu', 2.5],
  ]),
  big('write', [
    ['nbdkit', 1.1, 0.6],
    ['qemu', 1.3],
  ]),
]

const DIRECT: readonly Workload[] = [
  read4k('QD1', '--qd 1', [['qemu-direct', 1.1, 0.5]]),
  read4k('QD16', '--qd 16', [['qemu-direct', 1.15, 0.5]]),
  read4k('QD64', '--qd 64', [['qemu-direct', 2.0, 0.5]]),
  read4k('QD16 x4', '--qd 16 --connections 4', []),
  write4k('QD16', '--qd 16', [['qemu-direct', 1.0]]),
  write4k('QD64', '--qd 64', [['qemu-direct', 1.2]]),
  big('read', [['qemu-direct', 1.8]]),
  big('write', [['qemu-direct', 1.8]]),
]

const COLD: readonly Workload[] = [
  read4k('QD16', '--qd 16', [
    ['nbdkit', 1.3],
    ['qemu', 1.5],
  ]),
  read4k('QD64', '--qd 64', [
    ['nbdkit', 1.4],
    ['qemu', 2],
  ]),
]

const composite = (
  name: string,
  args: string,
  goals: readonly (readonly [Contender, Contender, number])[],
): Workload => ({
  name,
  args: args.split(' '),
  writes: name.includes('write'),
  bytes: name.startsWith('1M'),
  goals: goals.map(([of, against, least]) => ({ of, against, least })),
})

const COMPOSITES: readonly Workload[] = [
  composite('4K read QD16', '--bs 4k --qd 16', [
    ['stripe4', 'single', 0.97],
    ['concat4', 'single', 0.97],
    ['mirror2', 'single', 1.0],
  ]),
  composite('4K read QD64', '--bs 4k --qd 64', [
    ['stripe4', 'single', 0.97],
    ['concat4', 'single', 0.97],
    ['mirror2', 'single', 1.0],
  ]),
  composite('4K write QD16', `--bs 4k --qd 16 --rw write ${HOT}`, [
    ['stripe4', 'single', 0.97],
    ['concat4', 'single', 0.97],
    ['mirror2', 'single', 0.7],
    ['mirror2', 'qemu-quorum', 5],
  ]),
  composite('4K write QD64', `--bs 4k --qd 64 --rw write ${HOT}`, [
    ['stripe4', 'single', 0.97],
    ['concat4', 'single', 0.97],
    ['mirror2', 'single', 0.7],
    ['mirror2', 'nbdkit', 1.5],
  ]),
  composite('1M read QD8', '--bs 1m --qd 8 --sequential', [
    ['stripe4', 'single', 1.0],
    ['concat4', 'single', 1.0],
    ['mirror2', 'single', 1.0],
  ]),
  composite('1M write QD8', '--bs 1m --qd 8 --sequential --rw write', [
    ['stripe4', 'single', 1.0],
    ['concat4', 'single', 1.0],
    ['mirror2', 'single', 0.6],
  ]),
]

const PEERS: readonly Contender[] = ['single', 'nbdkit', 'nbd-server', 'qemu']
const MIXED: readonly Contender[] = ['single', 'stripe4', 'concat4', 'mirror2', 'nbdkit', 'qemu-quorum']

export const SECTIONS: readonly Section[] = [
  {
    id: 'tmpfs',
    title: 'One component, file on tmpfs',
    place: 'tmpfs',
    io: 'buffered',
    cold: false,
    fileMegabytes: 512,
    contenders: PEERS,
    ours: ['single'],
    workloads: ONE_FILE,
  },
  {
    id: 'ext4',
    title: 'One component, file on disk, page cache warm',
    place: 'disk',
    io: 'buffered',
    cold: false,
    fileMegabytes: 512,
    contenders: PEERS,
    ours: ['single'],
    workloads: ONE_FILE,
  },
  {
    id: 'direct',
    title: 'One component, file on disk, O_DIRECT (qemu: cache.direct=on)',
    place: 'disk',
    io: 'direct',
    cold: false,
    fileMegabytes: 2048,
    contenders: ['single', 'qemu-direct'],
    ours: ['single'],
    workloads: DIRECT,
  },
  {
    id: 'cold',
    title: 'One component, file on disk, page cache dropped before each run',
    place: 'disk',
    io: 'buffered',
    cold: true,
    fileMegabytes: 4096,
    contenders: ['single', 'nbdkit', 'qemu'],
    ours: ['single'],
    workloads: COLD,
  },
  {
    id: 'composite-tmpfs',
    title: 'Stripe of 4 (64k), concatenation of 4 and mirror of 2 on tmpfs',
    place: 'tmpfs',
    io: 'buffered',
    cold: false,
    fileMegabytes: 512,
    contenders: MIXED,
    ours: ['stripe4', 'concat4', 'mirror2'],
    workloads: COMPOSITES,
  },
  {
    id: 'composite-ext4',
    title: 'Stripe of 4 (64k), concatenation of 4 and mirror of 2, page cache warm',
    place: 'disk',
    io: 'buffered',
    cold: false,
    fileMegabytes: 512,
    contenders: MIXED,
    ours: ['stripe4', 'concat4', 'mirror2'],
    workloads: COMPOSITES,
  },
  {
    id: 'ceiling',
    title: 'The load generator itself: nbdkit null plugin, no storage',
    place: 'tmpfs',
    io: 'buffered',
    cold: false,
    fileMegabytes: 1,
    contenders: ['null'],
    ours: [],
    workloads: [read4k('QD1', '--qd 1', []), read4k('QD64', '--qd 64', []), big('read', [])],
  },
]

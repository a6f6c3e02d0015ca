/**
 * The same storage under another name, through everything a host has for that: links, bind mounts, loop
 * devices (whole, at an offset, on top of one another), partitions; and storage that is mounted, swapped on,
 * held by another process or holds a replica. A real metad refuses each in SVM's words, and accepts what only
 * looks alike. Most of it needs root and loop devices.
 */
import { spawnSync } from 'node:child_process'
import {
  closeSync,
  constants,
  existsSync,
  linkSync,
  mkdirSync,
  openSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { type Metad, startMetad } from '../../tools/daemon.js'
import { missing } from '../../tools/foreign.js'

// tap's 30 seconds for a whole file are short when the machine is busy.
t.setTimeout(240_000)

const run = (command: string, ...args: string[]): string => {
  const ran = spawnSync(command, args, {
    encoding: 'utf8',
    env: { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` },
  })
  if (ran.status !== 0) throw new Error(`${command} ${args.join(' ')}: ${ran.stderr}`)
  return ran.stdout.trim()
}
const works = (command: string, ...args: string[]): boolean => {
  try {
    run(command, ...args)
    return true
  } catch {
    return false
  }
}

const noRoot = process.getuid?.() === 0 ? false : 'needs root for loop devices and mounts'
const noLoops = (...tools: readonly string[]): string | false =>
  noRoot || (existsSync('/dev/loop-control') ? missing('losetup', ...tools) : 'no /dev/loop-control')

const loop = (t: Test, ...args: string[]): string => {
  const device = run('losetup', '--show', '-f', ...args)
  t.teardown(() => void works('losetup', '-d', device))
  return device
}
const OFFSET = ['-o', String(1 << 20)]

interface Rig {
  readonly metad: Metad
  /** A file of 16 MiB that is component of d1. */
  readonly used: string
  readonly path: (name: string) => string
  /** What a command says behind `cmd: host: `, or null when it succeeded. */
  readonly refusal: (command: string, ...args: readonly string[]) => string | null
}

const startRig = async (t: Test): Promise<Rig> => {
  const metad = await startMetad(t)
  const path = (name: string): string => join(metad.root, 'disks', name)
  metad.must('metadb', ['-a', '-f', path('replica')])
  const used = metad.disk('used', 16)
  metad.must('metainit', ['d1', '1', '1', used])
  return {
    metad,
    used,
    path,
    refusal: (command, ...args) => {
      const said = metad.run(command, args)
      if (said.status === 0) return null
      return said.stderr.replace(`${command}: ${hostname()}: `, '').trim()
    },
  }
}

const twice = (path: string, unit = 'd1'): string =>
  `${path}: has appeared more than once in the specification of ${unit}`
const overlaps = (path: string, unit = 'd1'): string => `${path}: overlaps with device in ${unit}`
const DATABASE = 'metadevice state database'
const REPLICA = 'has a metadevice database replica'
const EXISTS = 'metadevice database replica exists on device'

t.test('links', async (t) => {
  const { used, path, refusal, metad } = await startRig(t)
  linkSync(used, path('hard'))
  symlinkSync(used, path('soft'))
  symlinkSync(path('soft'), path('softer'))
  for (const name of ['hard', 'soft', 'softer'])
    t.equal(refusal('metainit', 'd9', '1', '1', path(name)), twice(path(name)))
  linkSync(path('replica'), path('hardreplica'))
  t.equal(refusal('metainit', 'd9', '1', '1', path('hardreplica')), `${path('hardreplica')}: ${REPLICA}`)
  t.equal(refusal('metadb', '-a', path('hard')), twice(path('hard')))
  t.equal(refusal('metadb', '-a', path('hardreplica')), `${path('hardreplica')}: ${EXISTS}`)
  writeFileSync(path('new1'), '')
  linkSync(path('new1'), path('new2'))
  t.equal(refusal('metadb', '-a', path('new1'), path('new2')), `${path('new2')}: ${EXISTS}`)
  // The name is gone, another file has it: that is other storage.
  rmSync(path('hard'))
  metad.disk('hard', 16)
  t.equal(refusal('metainit', 'd9', '1', '1', path('hard')), null)
})

t.test('bind mounts', { skip: noRoot }, async (t) => {
  const { used, path, refusal, metad } = await startRig(t)
  metad.disk('bound', 16)
  mkdirSync(path('there'))
  if (!works('mount', '--bind', used, path('bound'))) {
    t.comment('skipped: this host does not let us mount')
    return
  }
  t.teardown(() => void works('umount', path('bound')))
  run('mount', '--bind', path(''), path('there'))
  t.teardown(() => void works('umount', '-l', path('there')))
  t.equal(refusal('metainit', 'd9', '1', '1', path('bound')), twice(path('bound')))
  t.equal(refusal('metainit', 'd9', '1', '1', path('there/used')), twice(path('there/used')))
  t.equal(refusal('metainit', 'd9', '1', '1', path('there/replica')), `${path('there/replica')}: ${REPLICA}`)
})

t.test('loop devices: whole, at an offset, on one another', { skip: noLoops() }, async (t) => {
  const { used, path, refusal, metad } = await startRig(t)
  const whole = loop(t, used)
  const part = loop(t, ...OFFSET, used)
  const above = loop(t, whole)
  const partAbove = loop(t, ...OFFSET, whole)
  t.equal(refusal('metainit', 'd9', '1', '1', whole), twice(whole))
  t.equal(refusal('metainit', 'd9', '1', '1', above), twice(above))
  t.equal(refusal('metainit', 'd9', '1', '1', part), overlaps(part))
  t.equal(refusal('metainit', 'd9', '1', '1', partAbove), overlaps(partAbove))
  t.equal(refusal('metattach', 'd1', part), overlaps(part))
  t.equal(refusal('metainit', 'hsp001', whole), twice(whole))
  t.equal(refusal('metadb', '-a', whole), twice(whole))
  t.equal(refusal('metadb', '-a', part), overlaps(part))

  // One file in two halves is two disks; a third that has something of both is not.
  const file = metad.disk('halves', 16)
  const MIB = 1 << 20
  const left = loop(t, '--sizelimit', String(8 * MIB), file)
  const right = loop(t, '-o', String(8 * MIB), file)
  const middle = loop(t, '-o', String(4 * MIB), '--sizelimit', String(8 * MIB), file)
  metad.must('metainit', ['d2', '1', '2', left, right])
  t.equal(refusal('metainit', 'd9', '1', '1', middle), overlaps(middle, 'd2'))
  t.equal(refusal('metainit', 'd9', '1', '1', file), overlaps(file, 'd2'))

  // What lies behind a loop device whose file has no name any more, nobody can say.
  const orphan = loop(t, metad.disk('orphan', 16))
  linkSync(path('orphan'), path('heir'))
  rmSync(path('orphan'))
  t.equal(refusal('metainit', 'd9', '1', '1', orphan), `${orphan}: No such device or address`)
})

t.test('partitions', { skip: noLoops('sfdisk', 'partx') }, async (t) => {
  const { refusal, metad } = await startRig(t)
  const file = metad.disk('disk', 32)
  const table = spawnSync('/usr/sbin/sfdisk', ['-q', file], { input: 'label: gpt\n2048,16384\n20480,16384\n' })
  if (table.status !== 0) throw new Error(String(table.stderr))
  const disk = loop(t, file)
  works('partx', '-a', disk)
  const [one, two] = [`${disk}p1`, `${disk}p2`]
  if (!existsSync(one)) {
    t.comment('skipped: no partition devices on this host')
    return
  }
  t.teardown(() => void works('partx', '-d', disk))
  metad.must('metadb', ['-a', one])
  t.equal(refusal('metainit', 'd9', '1', '1', one), `${one}: ${REPLICA}`)
  t.equal(refusal('metainit', 'd9', '1', '1', disk), overlaps(disk, DATABASE))
  t.equal(refusal('metainit', 'd9', '1', '1', file), overlaps(file, DATABASE))
  t.equal(refusal('metadb', '-a', one), `${one}: ${EXISTS}`)
  // The disk holds a replica, this partition does not.
  metad.must('metainit', ['d2', '1', '1', two])
  t.match(metad.must('metastat', ['d2']), new RegExp(`${two} +0 +No `))
  const again = loop(t, '-o', String(20480 * 512), '--sizelimit', String(16384 * 512), file)
  t.equal(refusal('metainit', 'd9', '1', '1', again), twice(again, 'd2'))
  t.equal(refusal('metadb', '-a', again), twice(again, 'd2'))
})

t.test('replicas on block devices', { skip: noLoops() }, async (t) => {
  const { refusal, metad } = await startRig(t)
  const file = metad.disk('raw', 16)
  const [raw, twin, part] = [loop(t, file), loop(t, file), loop(t, ...OFFSET, file)]
  t.equal(refusal('metadb', '-a', raw, twin), `${twin}: ${EXISTS}`, 'two names in one command')
  t.equal(refusal('metadb', '-a', raw, part), `${part}: ${EXISTS}`, 'and two that overlap')
  metad.must('metadb', ['-a', raw])
  for (const name of [twin, file]) {
    t.equal(refusal('metadb', '-a', name), `${name}: ${EXISTS}`)
    t.equal(refusal('metainit', 'd9', '1', '1', name), `${name}: ${REPLICA}`)
  }
  t.equal(refusal('metainit', 'd9', '1', '1', part), overlaps(part, DATABASE))
  t.equal(refusal('metainit', '-f', 'd9', '1', '1', part), overlaps(part, DATABASE), 'force does not help')
  t.equal(refusal('metadb', '-a', part), overlaps(part, DATABASE))
})

t.test('mounted', { skip: noLoops('mkfs.ext4', 'mount', 'umount') }, async (t) => {
  const { path, refusal, metad } = await startRig(t)
  const file = metad.disk('fs', 16)
  run('mkfs.ext4', '-q', '-F', file)
  const [device, part] = [loop(t, file), loop(t, ...OFFSET, file)]
  const where = path('mount point')
  mkdirSync(where)
  if (!works('mount', device, where)) {
    t.comment('skipped: this host does not let us mount')
    return
  }
  t.teardown(() => void works('umount', where))
  t.equal(refusal('metainit', 'd9', '1', '1', device), `${device}: is mounted on ${where}`)
  t.equal(refusal('metainit', 'd9', '1', '1', file), `${file}: is mounted on ${where}`)
  const partial = `${part}: overlaps with ${device} which is mounted as '${where}'`
  t.equal(refusal('metainit', 'd9', '1', '1', part), partial)
  t.equal(refusal('metattach', 'd1', part), partial)
  t.equal(refusal('metadb', '-a', part), partial)
  t.equal(refusal('metadb', '-a', device), `${device}: is mounted on ${where}`)
  t.equal(refusal('metainit', 'hsp001', device), `${device}: is mounted on ${where}`)
  t.match(refusal('metainit', '-f', 'd9', '1', '1', device), /Device or resource busy$/, 'the kernel itself holds it')
  run('umount', where)
  t.equal(refusal('metainit', 'd9', '1', '1', device), null, 'unmounted it is free')
})

t.test('swapped on', { skip: noLoops('mkswap', 'swapon', 'swapoff') }, async (t) => {
  const { refusal, metad } = await startRig(t)
  const file = metad.disk('swap', 16)
  const [device, part] = [loop(t, file), loop(t, ...OFFSET, file)]
  run('mkswap', device)
  if (!works('swapon', device)) {
    t.comment('skipped: this host does not let us swap')
    return
  }
  t.teardown(() => void works('swapoff', device))
  t.equal(refusal('metainit', 'd9', '1', '1', device), `${device}: is swapped on`)
  t.equal(refusal('metainit', 'd9', '1', '1', file), `${file}: is swapped on`)
  t.equal(refusal('metainit', 'd9', '1', '1', part), `${part}: overlaps with ${device} which is a swap device`)
  t.equal(refusal('metadb', '-a', device), `${device}: is swapped on`)
})

t.test('held by another process', { skip: noLoops() }, async (t) => {
  const { refusal, metad } = await startRig(t)
  const device = loop(t, metad.disk('held', 16))
  const fd = openSync(device, constants.O_RDWR | constants.O_EXCL)
  t.equal(refusal('metainit', 'd9', '1', '1', device), `${device}: Device or resource busy`)
  closeSync(fd)
  t.equal(refusal('metainit', 'd9', '1', '1', device), null)
})

t.test('another metad has it', async (t) => {
  const { used, path, refusal } = await startRig(t)
  const other = await startMetad(t)
  other.must('metadb', ['-a', '-f', join(other.root, 'disks/replica')])
  const busy = other.run('metainit', ['d1', '1', '1', used])
  t.match(busy, { status: 1, stderr: /Device or resource busy\n\n$/ })
  t.equal(other.must('metastat', ['-p']), '')
  const shared = other.run('metadb', ['-a', path('replica')])
  t.match(shared, { status: 1, stderr: new RegExp(`${path('replica')}: ${EXISTS}`) })
  t.equal(refusal('metadb', '-a', join(other.root, 'disks/replica')), `${join(other.root, 'disks/replica')}: ${EXISTS}`)
})

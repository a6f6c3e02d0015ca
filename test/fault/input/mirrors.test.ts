/**
 * What mirrors refuse in each of their states, in SVM's words and order (commands.md 3.5 to 3.10, 3.23), and what the
 * same commands say when they are carried out. Disks that fail on demand stand behind the components.
 */
import { mkdtempSync, renameSync, rmSync } from 'node:fs'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { until } from '../../../bench/lib/process.js'
import { type Metad, startMetad, type Test } from '../../tools/daemon.js'
import { type FaultDisks, missingFaultDisk, startFaultDisks } from '../../tools/faultdisk.js'
import { NbdClient } from '../../tools/nbdclient.js'

// tap's 30 seconds for a whole file are short when the machine is busy.
t.setTimeout(240_000)

const PATIENCE_MS = 60_000

const STATE = 'attempt operation on a submirror in illegal state'
const ONE_WAY = 'attempt to replace a component on the last running submirror'
const LAST = 'attempt to detach last running submirror'
const UNREADABLE = 'operation would result in no readable submirrors'
const ERRED = 'attempt an operation on a submirror that has erred components'
const ORDER = 'component in invalid state to replace - Replace "Maintenance" components first'
const BAD = 'attempted to clear mirror with submirror(s) in invalid state'
const FEW = 'fewer than two submirrors are in step'
const UNAVAILABLE = "component is in unavailable state; run 'metastat -i'"

interface Rig {
  readonly metad: Metad
  readonly disks: FaultDisks
  /** The line, and what it must say: `! text` on stderr after `COMMAND: HOST: `, status 1 (255 for metasync). `$x` is a disk. */
  readonly all: (t: Test & { equal(a: unknown, b: unknown, what: string): void }, steps: readonly string[]) => void
  readonly okay: () => Promise<void>
}

const start = async (t: Test): Promise<Rig> => {
  const dir = mkdtempSync(join(tmpdir(), 'mirrors-'))
  t.teardown(() => Promise.resolve(rmSync(dir, { recursive: true, force: true })))
  const disks = await startFaultDisks(t, dir, { a: 4, b: 4, small: 2 })
  const metad = await startMetad(t, { conf: 'component_timeout = 5\n' })
  metad.must('metadb', ['-a', '-f', ...['r1', 'r2', 'r3'].map((n) => join(metad.root, 'disks', n))])
  const plain = metad.disk('e', 4)
  const path = (text: string): string =>
    text.replace(/\$(\w+)/g, (_, name: string) => (name === 'e' ? plain : disks.path(name)))
  return {
    metad,
    disks,
    all: (t, steps) => {
      for (const step of steps) {
        const [line = '', expected = ''] = step.split(' => ')
        const [command = '', ...words] = path(line).split(' ')
        const { status, stdout, stderr } = metad.run(command, words)
        const refused = expected.startsWith('! ')
        const said = refused ? `${command}: ${hostname()}: ${path(expected.slice(2))}\n\n` : ''
        t.equal(stderr, said, `${line}: stderr`)
        t.equal(stdout, refused || expected === '' ? '' : `${path(expected)}\n`, line)
        t.equal(status, !refused ? 0 : command === 'metasync' ? 255 : 1, `${line}: status`)
      }
    },
    okay: () =>
      until('all is Okay', () => !/maint|resync|offline|%/.test(metad.must('metastat', ['-c', 'd0'])), PATIENCE_MS),
  }
}

const skip = missingFaultDisk()

t.test('one side, offline, Maintenance, unavailable', { skip }, async (t) => {
  const { metad, disks, all, okay } = await start(t)
  all(t, [
    'metainit d1 1 1 $a => d1: Concat/Stripe is setup',
    'metainit d2 1 1 $b => d2: Concat/Stripe is setup',
    'metainit d0 -m d1 => d0: Mirror is setup',
    `metadetach d0 d1 => ! d0: ${LAST}`,
    `metadetach -f d0 d1 => ! d0: ${LAST}`,
    `metaoffline d0 d1 => ! d0: ${UNREADABLE}`,
    `metaoffline -f d0 d1 => ! d0: ${UNREADABLE}`,
    `metaonline d0 d1 => ! d0: ${STATE}`,
    `metareplace -e d0 $a => ! d0: ${ONE_WAY}`,
    `metareplace d0 $a $e => ! d0: ${ONE_WAY}`,
    'metasync d0',
    'metasync -c d0',
    `metasync --verify d0 => ! d0: ${FEW}`,
    'metattach d0 d2 => d0: submirror d2 is attached',
  ])
  await okay()
  all(t, [
    'metaoffline d0 d2 => d0: submirror d2 is offlined',
    `metaoffline d0 d2 => ! d0: ${STATE}`,
    'metaoffline -f d0 d2 => d0: submirror d2 is offlined',
    `metaoffline d0 d1 => ! d0: ${UNREADABLE}`,
    `metaoffline -f d0 d1 => ! d0: ${UNREADABLE}`,
    `metadetach d0 d1 => ! d0: ${UNREADABLE}`,
    `metareplace -e d0 $b => ! d0: ${STATE}`,
    `metareplace -e d0 $a => ! d0: $a: ${ORDER}`,
    `metaclear d0 => ! d0: ${BAD}`,
    'metasync d0',
    `metasync --verify d0 => ! d0: ${FEW}`,
    `metaonline d0 d1 => ! d0: ${STATE}`,
    'metadetach d0 d2 => d0: submirror d2 is detached',
    'metattach d0 d2 => d0: submirror d2 is attached',
  ])
  await okay()
  all(t, ['metaoffline d0 d2 => d0: submirror d2 is offlined', 'metaonline d0 d2 => d0: submirror d2 is onlined'])
  await okay()

  const client = await NbdClient.open(metad.socket, { name: 'd0' })
  disks.tell('b fail write EIO')
  t.equal((await client.write(0n, Buffer.alloc(4096, 'x'))).error, 0)
  all(t, [
    `metaoffline d0 d2 => ! d0: ${STATE}`,
    `metaoffline d0 d1 => ! d0: ${UNREADABLE}`,
    `metadetach d0 d2 => ! d0: ${ERRED}`,
    `metadetach -f d0 d1 => ! d0: ${UNREADABLE}`,
    `metaonline d0 d2 => ! d0: ${STATE}`,
    `metareplace -e d0 $a => ! d0: $a: ${ORDER}`,
    `metareplace d0 $a $e => ! d0: $a: ${ORDER}`,
    `metareplace d0 $b $small => ! d0: $small: replace failure, new component is too small`,
    'metareplace d0 $b $a => ! $a: has appeared more than once in the specification of d1',
    "metareplace d0 $e $b => ! d0: $e: can't find component in unit",
    'metaclear d0 => ! d0: metadevice is open',
    'metasync d0',
    `metasync --verify d0 => ! d0: ${FEW}`,
    'metaoffline -f d0 d2 => d0: submirror d2 is offlined',
    'metaonline d0 d2 => d0: submirror d2 is onlined',
  ])
  await until(
    'the copy of what is there has ended',
    () => !metad.must('metastat', ['-c', 'd0']).includes('resync'),
    PATIENCE_MS,
  )
  client.destroy()
  await until('nobody is there', () => metad.run('metaclear', ['d0']).stderr.includes(BAD), PATIENCE_MS)
  all(t, ['metareplace d0 $b $e => d0: device $b is replaced with $e'])
  await okay()
  all(t, ['metareplace -e d0 $e => d0: device $e is enabled'])
  await okay()

  t.equal(await metad.stop(), 0)
  const e = join(metad.root, 'disks/e')
  renameSync(e, `${e}.away`)
  await metad.start()
  all(t, [
    `metadetach d0 d2 => ! d0: ${UNAVAILABLE}`,
    `metaoffline d0 d1 => ! d0: ${UNREADABLE}`,
    `metareplace d0 $a $b => ! d0: $a: ${ORDER}`,
  ])
})

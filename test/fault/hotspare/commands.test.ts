/** Hot spare pools with a real metad: every command, every layout, and the way through md.tab and back. */
import { readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { type Metad, startMetad, type Test } from '../../tools/daemon.js'

// tap's 30 seconds for a whole file are short when the machine is busy.
t.setTimeout(240_000)

const BLOCKS = (16 << 20) / 512

const start = async (t: Test): Promise<Metad> => {
  const metad = await startMetad(t)
  metad.must('metadb', ['-a', '-f', ...['r1', 'r2', 'r3'].map((n) => join(metad.root, 'disks', n))])
  for (const name of ['a', 'b', 'c', 's1', 's2', 's3']) metad.disk(name, 16)
  return metad
}

t.test('metahs, metainit, metaparam, metastat and metaclear of pools', async (t) => {
  const metad = await start(t)
  const path = (name: string): string => join(metad.root, 'disks', name)
  const clean = (text: string): string => text.replaceAll(join(metad.root, 'disks'), '/disks')
  const says = (line: string): string => {
    const [command = '', ...words] = line.split(' ')
    const typed = words.map((w) => w.replace('/disks', join(metad.root, 'disks')))
    const { status, stdout, stderr } = metad.run(command, typed)
    const said = `${stdout}${stderr.replace(/^(\w+): [^:]*: /, '$1: ')}`
    return clean(status === 0 ? said : `${said}status ${status ?? ''}`)
  }
  const steps: readonly (readonly [string, string])[] = [
    ['metahs -i', 'metahs: no hotspare pools found\n\nstatus 1'],
    ['metahs -a all /disks/s1', 'metahs: no hotspare pools found\n\nstatus 1'],
    ['metainit -n hsp001 /disks/s1', 'hsp001: Hotspare pool is setup\n'],
    ['metahs -i hsp001', 'metahs: hsp001: invalid hotspare pool\n\nstatus 1'],
    ['metainit hsp001 /disks/s1', 'hsp001: Hotspare pool is setup\n'],
    ['metainit hsp001 /disks/s2', 'metainit: hsp001: hotspare pool is already setup\n\nstatus 1'],
    ['metahs -a hsp002', 'hsp002: Hotspare pool is setup\n'],
    ['metahs -a all /disks/s2', 'hsp001: Hotspare is added\nhsp002: Hotspare is added\n'],
    [
      'metahs -a hsp001 /disks/s2',
      'metahs: hsp001: /disks/s2: add or replace failed, hot spare is already in use\n\nstatus 1',
    ],
    ['metahs -a hsp001 /disks/r1', 'metahs: /disks/r1: has a metadevice database replica\n\nstatus 1'],
    ['metainit d1 1 1 /disks/a -h hsp003', 'metainit: hsp003: invalid hotspare pool\n\nstatus 1'],
    ['metainit d1 1 1 /disks/a -h hsp001', 'd1: Concat/Stripe is setup\n'],
    ['metainit d2 1 1 /disks/b', 'd2: Concat/Stripe is setup\n'],
    [
      'metainit d3 1 1 /disks/s1',
      'metainit: /disks/s1: has appeared more than once in the specification of hsp001\n\nstatus 1',
    ],
    [
      'metahs -a hsp001 /disks/a',
      'metahs: /disks/a: has appeared more than once in the specification of d1\n\nstatus 1',
    ],
    [
      'metadb -a /disks/s1',
      'metadb: /disks/s1: has appeared more than once in the specification of hsp001\n\nstatus 1',
    ],
    ['metaparam -h hsp002 d2', ''],
    ['metaparam d2', 'd2: Concat/Stripe current parameters are:\n    Hot spare pool: hsp002\n'],
    ['metaparam -h none d2', ''],
    ['metaparam d2', 'd2: Concat/Stripe current parameters are:\n    Hot spare pool: none\n'],
    [
      'metahs -r all /disks/s2 /disks/s3',
      'hsp001: Hotspare /disks/s2 is replaced with /disks/s3\nhsp002: Hotspare /disks/s2 is replaced with /disks/s3\n',
    ],
    ['metahs -e /disks/s3', "metahs: /disks/s3: hotspare isn't broken, can't enable\n\nstatus 1"],
    ['metahs -e /disks/c', "metahs: /disks/c: hotspare doesn't exist\n\nstatus 1"],
    ['metastat -p', 'd2 1 1 /disks/b\nd1 1 1 /disks/a -h hsp001\nhsp002 /disks/s3\nhsp001 /disks/s1 /disks/s3\n'],
    ['metastat -c hsp001', 'hsp001           h      - /disks/s1 /disks/s3\n'],
    ['metahs -d hsp001', 'metahs: hsp001: hotspare pool is busy\n\nstatus 1'],
    ['metaclear hsp001', 'metaclear: hsp001: hotspare pool in use\n\nstatus 1'],
    ['metahs -d all /disks/s3', 'hsp001: Hotspare is deleted\nhsp002: Hotspare is deleted\n'],
    ['metahs -d hsp002', 'hsp002: Hotspare pool is cleared\n'],
    ['metahs -d hsp001 /disks/s1', 'hsp001: Hotspare is deleted\n'],
    ['metahs -d hsp001', 'metahs: hsp001: hotspare pool is referenced\n\nstatus 1'],
    ['metahs -a hsp001 /disks/s1 /disks/s2', 'hsp001: Hotspares are added\n'],
    ['metahs -n -d hsp001', 'usage'],
  ]
  for (const [line, expected] of steps) {
    if (expected === 'usage') t.match(says(line), /usage:\tmetahs .*status 1$/s, line)
    else t.equal(says(line), expected, line)
  }

  const long = metad.must('metastat', ['-q', 'hsp001'])
  const width = path('s1').length + 2
  t.equal(
    long,
    `hsp001: 2 hot spares\n\t${'Device'.padEnd(width)} Status      Length  \t\tReloc\n` +
      ['s1', 's2'].map((n) => `        ${path(n).padEnd(width)} Available    ${BLOCKS} blocks\tNo \n`).join('') +
      '\n',
  )
  const json = JSON.parse(metad.must('metastat', ['--json'])) as { units: { kind: string; spares?: unknown[] }[] }
  t.match(
    json.units.filter((u) => u.kind === 'pool'),
    [{ name: 'hsp001', size: 0, spares: [{ device: path('s1'), state: 'Available', size: BLOCKS }, {}] }],
  )

  // The same again after a restart, and from its own words.
  const before = metad.must('metastat', ['-p'])
  await metad.kill9()
  await metad.start()
  t.equal(metad.must('metastat', ['-p']), before, 'after kill -9')
  writeFileSync(join(metad.root, 'etc/md.tab'), before)
  t.equal(
    clean(metad.must('metaclear', ['-a'])),
    'd2: Concat/Stripe is cleared\nd1: Concat/Stripe is cleared\nhsp001: Hotspare pool is cleared\n',
  )
  t.equal(metad.must('metastat', ['-p']), '')
  const again = metad.must('metainit', ['-a'])
  t.equal(again.split('\n').filter((l) => l.endsWith('is setup')).length, 3)
  t.same(metad.must('metastat', ['-p']).split('\n').sort(), before.split('\n').sort(), 'md.tab and back')
  t.match(readFileSync(join(metad.root, 'etc/md.cf'), 'utf8'), /^hsp001 \S+s1 \S+s2$/m)
})

t.test('metastat -i takes spares that cannot be read out of their pools', async (t) => {
  const metad = await start(t)
  const path = (name: string): string => join(metad.root, 'disks', name)
  metad.must('metainit', ['hsp001', path('s1'), path('s2')])
  metad.must('metainit', ['hsp002', path('s2')])
  t.equal(metad.run('metastat', ['-i', '-p']).stderr, '')
  truncateSync(path('s2'), 4096)
  rmSync(path('s1'))
  const { status, stdout, stderr } = metad.run('metastat', ['-i', '-p'])
  t.equal(status, 0)
  t.equal(stdout, 'hsp002\nhsp001\n')
  const gone = (name: string, pool: string): string =>
    `NOTICE: Hotspare ${path(name)} in ${pool} has failed.\n\tDeleting ${path(name)} since it not in use\n\n`
  for (const text of [gone('s1', 'hsp001'), gone('s2', 'hsp001'), gone('s2', 'hsp002')])
    t.ok(stderr.includes(text), text)
  t.equal(metad.must('metahs', ['-i']), 'hsp002: is empty\n\nhsp001: is empty\n\n')
})

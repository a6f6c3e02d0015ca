import t from 'tap'
import { metaError } from '../../../src/msg/errors.js'
import {
  compactSize,
  formatChange,
  formatVerify,
  formatError,
  formatTime,
  humanSize,
  percentDone,
  printable,
} from '../../../src/msg/format.js'

t.test('sizes', (t) => {
  for (const [blocks, text] of [
    [0, '0  B'],
    [1, '512  B'],
    [2, '1.0 KB'],
    [3, '1.5 KB'],
    [19, '9.5 KB'],
    [20, '10 KB'],
    [2047, '1023 KB'],
    [2048, '1.0 MB'],
    [2097152, '1.0 GB'],
    [2097151, '1023 MB'],
    [20971519, '10.0 GB'],
    [20971520, '10 GB'],
    [204800, '100 MB'],
    [2147483648, '1.0 TB'],
    [4831838208, '2.2 TB'],
    [2 ** 42, '2.0 PB'],
  ] as const) {
    t.equal(humanSize(blocks), text, `${blocks}`)
  }
  t.equal(humanSize(4831838208 + 2), '2.3 TB', 'just above a tie (2.25 TB) rounds up')
  t.equal(compactSize(0), '-')
  t.equal(compactSize(1), '512B')
  t.equal(compactSize(3145728), '1.5GB')
  t.end()
})

t.test('times', (t) => {
  t.equal(formatTime(0), '(invalid time)')
  t.equal(formatTime(Number.NaN), '(invalid time)')
  t.equal(formatTime(new Date(2031, 2, 4, 5, 6, 7).getTime()), 'Tue Mar  4 05:06:07 2031')
  t.equal(formatTime(new Date(2031, 10, 28, 23, 59, 58).getTime()), 'Fri Nov 28 23:59:58 2031')
  t.end()
})

t.test('percentages never promise the end before it', (t) => {
  t.equal(percentDone(0, 100, 10), '0')
  t.equal(percentDone(379, 1000, 10), '37')
  t.equal(percentDone(999999, 1000000, 10), '99')
  t.equal(percentDone(1000000, 1000000, 10), '100')
  t.equal(percentDone(5, 0, 10), '0')
  t.equal(percentDone(379, 1000, 2 ** 31), '37')
  t.equal(percentDone(379, 1000, 2 ** 31 + 1), '37.9')
  t.equal(percentDone(49, 1000, 2 ** 31 + 1), ' 4.9')
  t.end()
})

t.test('error lines', (t) => {
  t.equal(formatError('metainit', 'ada', metaError('unitExists', 'd7')), 'metainit: ada: d7: unit already set up\n\n')
  t.equal(
    formatError('metainit', 'ada', {
      ...metaError('illegalOption', 'd7: "-q"'),
      context: '/etc/metadisk/md.tab line 3',
    }),
    'metainit: ada: /etc/metadisk/md.tab line 3: d7: "-q": illegal option\n\n',
  )
  t.equal(
    formatError('metadb', 'ada', metaError('tooManyReplicas', undefined, '51', '50')),
    'metadb: ada: 51 metadevice database replicas is too many; the maximum is 50\n\n',
  )
  t.equal(
    formatError('x', 'h', metaError('sys', '/a', 'No space left on device')),
    'x: h: /a: No space left on device\n\n',
  )
  t.equal(formatError('x', 'h', metaError('mountedOn', '/a', '/m\u001b[2J')), 'x: h: /a: is mounted on /m?[2J\n\n')
  t.equal(printable('a\tb\nc\u0007\u009b'), 'a\tb\nc??')
  t.end()
})

t.test('success lines', (t) => {
  const lines = [
    formatChange({ change: 'setUp', kind: 'stripe', name: 'd1' }),
    formatChange({ change: 'setUp', kind: 'mirror', name: 'd2' }),
    formatChange({ change: 'cleared', kind: 'stripe', name: 'd1' }),
    formatChange({ change: 'cleared', kind: 'mirror', name: 'd2' }),
    formatChange({ change: 'submirrorAttached', name: 'd2', submirror: 'd1', check: false }),
    formatChange({ change: 'submirrorAttached', name: 'd2', submirror: 'd1', check: true }),
    formatChange({ change: 'componentsAttached', name: 'd1', count: 1, check: false }),
    formatChange({ change: 'componentsAttached', name: 'd1', count: 2, check: false }),
    formatChange({ change: 'componentsAttached', name: 'd1', count: 1, check: true }),
    formatChange({ change: 'componentsAttached', name: 'd1', count: 2, check: true }),
    formatChange({ change: 'submirrorDetached', name: 'd2', submirror: 'd1' }),
    formatChange({ change: 'submirrorOfflined', name: 'd2', submirror: 'd1' }),
    formatChange({ change: 'submirrorOnlined', name: 'd2', submirror: 'd1' }),
    formatChange({ change: 'deviceReplaced', name: 'd2', device: '/a', by: '/b' }),
    formatChange({ change: 'deviceEnabled', name: 'd2', device: '/a' }),
    formatChange({ change: 'parameters', lines: ['a', '    b'] }),
  ]
  t.equal(
    lines.join(''),
    [
      'd1: Concat/Stripe is setup',
      'd2: Mirror is setup',
      'd1: Concat/Stripe is cleared',
      'd2: Mirror is cleared',
      'd2: submirror d1 is attached',
      'd2: submirror d1 would attach',
      'd1: component is attached',
      'd1: components are attached',
      'd1: attaching component would suceed',
      'd1: attaching components would suceed',
      'd2: submirror d1 is detached',
      'd2: submirror d1 is offlined',
      'd2: submirror d1 is onlined',
      'd2: device /a is replaced with /b',
      'd2: device /a is enabled',
      'a',
      '    b',
      '',
    ].join('\n'),
  )
  t.end()
})

t.test('what a comparison of sides found', async (t) => {
  const report = { name: 'd0', kind: 'mirror', repaired: false, mismatchBlocks: 0, ranges: [] } as const
  t.equal(formatVerify(report), 'd0: submirrors are equal\n')
  const ranges = [
    { block: 7, blocks: 1 },
    { block: 2048, blocks: 16 },
  ]
  t.equal(formatVerify({ ...report, mismatchBlocks: 17, ranges }), 'd0: 17 blocks differ\n    7\n    2048-2063\n')
  t.equal(
    formatVerify({ ...report, repaired: true, mismatchBlocks: 20, ranges }),
    'd0: 20 blocks differed and were made equal\n    7\n    2048-2063\n    and 3 more\n',
  )
  t.equal(formatVerify({ ...report, mismatchBlocks: 1, ranges: ranges.slice(0, 1) }), 'd0: 1 block differs\n    7\n')
  const parity = { ...report, kind: 'raid5', name: 'd5' } as const
  t.equal(formatVerify(parity), 'd5: parity is right\n')
  t.equal(
    formatVerify({ ...parity, mismatchBlocks: 17, ranges: [] }),
    'd5: 17 blocks of parity are wrong\n    and 17 more\n',
  )
  t.equal(
    formatVerify({ ...parity, repaired: true, mismatchBlocks: 1, ranges: ranges.slice(0, 1) }),
    'd5: 1 block of parity was wrong and was made again\n    7\n',
  )
})

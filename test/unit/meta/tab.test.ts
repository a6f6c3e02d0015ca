import t from 'tap'
import {
  commandEntry,
  componentWords,
  definitionOf,
  findEntry,
  parseTab,
  replicaLocations,
  type Tab,
} from '../../../src/meta/tab.js'
import { name, text } from './world.js'

const tab = (s: string): Tab => {
  const r = parseTab(s, 'md.tab')
  if (!r.ok) throw new Error(text(r.error))
  return r.value
}
const words = (s: string): string[][] => tab(s).entries.map((e) => [e.nameWord.text, ...e.words.map((w) => w.text)])

t.test('lexical rules', async (t) => {
  t.same(words('# comment\n\n  d0 1 1\t/a  \n#\n'), [['d0', '1', '1', '/a']])
  t.same(words('d0 1 1 /a # not a comment\n'), [['d0', '1', '1', '/a', '#', 'not', 'a', 'comment']])
  t.same(words('d0 2 1 /a \\\n\t1 /b\nd1 1 1 /c'), [
    ['d0', '2', '1', '/a', '1', '/b'],
    ['d1', '1', '1', '/c'],
  ])
  t.same(words('d0 1 1 /a\\\n/b\n'), [['d0', '1', '1', '/a', '/b']], 'the join is a blank')
  t.same(words('# no join \\\nd1 1 1 /c\n'), [['d1', '1', '1', '/c']])
  t.same(words('d0 1 1 \\\n\\\n/a\\\n'), [['d0', '1', '1', '/a']])
  t.same(words('d0 1 1 /a\\'), [['d0', '1', '1', '/a\\']], 'no newline, no join')
  t.same(words('d0 1 1 /a\r\nd1 1 1 /b\r\n').length, 2)
  t.same(words(''), [])
})

t.test('positions', async (t) => {
  const [e] = tab('# x\n\n  d0  2 1 /a \\\n   1 /b\n').entries
  t.same(e?.nameWord, { text: 'd0', line: 3, column: 3 })
  t.same(
    e?.words.map((w) => [w.text, w.line, w.column]),
    [
      ['2', 3, 7],
      ['1', 3, 9],
      ['/a', 3, 11],
      ['1', 4, 4],
      ['/b', 4, 6],
    ],
  )
})

t.test('type of an entry', async (t) => {
  const file = [
    'd0 -m d1',
    'd1 -r /a /b /c',
    'd2 -p d0 1g',
    'd3 -t d0 d1',
    'mddb01 /a /b',
    'd4 1 1 /a',
    'hsp001 /a /b',
    'd5',
    'mddb02 -m d1',
    'mddbx 1 1 /a',
  ]
  t.same(
    tab(file.join('\n')).entries.map((e) => e.type),
    ['mirror', 'raid5', 'softpart', 'trans', 'replicas', 'stripe', 'pool', 'pool', 'mirror', 'stripe'],
  )
})

t.test('a bad name refuses the whole file and says where', async (t) => {
  const r = parseTab('d0 1 1 /a\n\n  9d 1 1 /b\n', '/etc/metadisk/md.tab')
  t.match(r, { ok: false, error: { line: 3, column: 3 } })
  t.equal(r.ok ? '' : text(r.error), '/etc/metadisk/md.tab line 3: "9d": syntax error')
  t.notOk(parseTab('all 1 1 /a', 'f').ok)
  t.ok(parseTab('blue/d0 1 1 /a', 'f').ok, 'entries of sets may stand in the file')
})

t.test('the first entry of a name wins, and device paths name it too', async (t) => {
  const file = tab('blue/d0 1 1 /x\n/dev/md/dsk/d0 1 1 /a\nd0 1 1 /b\n')
  t.same(
    findEntry(file, name('d0'))?.words.map((w) => w.text),
    ['1', '1', '/a'],
  )
  t.equal(findEntry(file, name('d9')), null)
})

t.test('errors in entries carry the line of the entry and the place of the word', async (t) => {
  const [e] = tab('\nd0 2 1 /a \\\n  1 /b -q\n').entries
  const r = e === undefined ? undefined : definitionOf(e)
  t.match(r, { ok: false, error: { line: 3, column: 8, context: 'md.tab line 2' } })
  t.equal(r === undefined || r.ok ? '' : text(r.error), 'md.tab line 2: d0: "-q": illegal option')
})

t.test('kinds of later releases fail only when used', async (t) => {
  const file = tab('d1 -r /a /b /c\nd2 -p d0 1g\nd3 -t d0 d1\nhsp001 /a\nd4 1 1 /a\n')
  const result = (n: string): string => {
    const e = findEntry(file, name(n))
    const r = e === null ? null : definitionOf(e)
    return r === null ? 'absent' : r.ok ? 'fine' : text(r.error)
  }
  t.equal(result('d1'), 'fine')
  t.equal(result('d2'), 'md.tab line 2: d2: soft partition is not supported by this release')
  t.equal(result('d3'), 'md.tab line 3: d3: trans is not supported by this release')
  t.equal(result('hsp001'), 'fine')
  t.equal(result('d4'), 'fine')
  const [, part] = file.entries
  t.match(part === undefined ? null : definitionOf(part), { error: { line: 2, column: 4 } }, 'the kind is the word')
  t.same(componentWords(file.entries), ['/a', '/b', '/c', '/a', '/a'])
})

t.test('replica locations', async (t) => {
  const at = (s: string) => {
    const [e] = tab(s).entries
    const r = e === undefined ? null : replicaLocations(e)
    return r === null ? null : r.ok ? r.value : text(r.error)
  }
  t.same(at('mddb01 /a /b'), { count: 1, length: 8192, places: ['/a', '/b'] })
  t.same(at('mddb01 -c 3 -l 4096 /a'), { count: 3, length: 4096, places: ['/a'] })
  t.equal(at('mddb01 -c 0 /a'), 'md.tab line 1: mddb01: "-c": syntax error')
  t.equal(at('mddb01 -x /a'), 'md.tab line 1: mddb01: "-x": illegal option')
  t.equal(at('mddb01 -c 2'), 'md.tab line 1: mddb01: syntax error')
  t.equal(at('d0 1 1 /a'), 'md.tab line 1: d0: syntax error')
})

t.test('stripe grammar', async (t) => {
  const define = (s: string) => {
    const e = commandEntry(s.split(' '))
    const d = e.ok ? definitionOf(e.value) : e
    return d.ok ? d.value : text(d.error)
  }
  t.same(define('d7 2 2 /a /b -i 64k 1 /c'), {
    kind: 'stripe',
    name: 'd7',
    rows: [
      { components: ['/a', '/b'], interlace: 128 },
      { components: ['/c'], interlace: null },
    ],
    hotSparePool: null,
  })
  t.match(define('d9 3 1 a 1 b 1 c -h hsp001'), { hotSparePool: 'hsp001' })
  t.match(define('d9 1 2 a b -i32k -hhsp1'), { rows: [{ interlace: 64 }], hotSparePool: 'hsp1' })
  t.equal(define('d0 0'), 'd0: not enough stripes specified')
  t.equal(define('d0 2 1 /a'), 'd0: not enough stripes specified')
  t.equal(define('d0 1 0'), 'd0: not enough components specified')
  t.equal(define('d0 1 3 /a /b'), 'd0: not enough components specified')
  t.equal(define('d0 1 2 /a -i 32k'), 'd0: not enough components specified')
  t.equal(define('d0 1 x /a'), 'd0: "x": syntax error')
  t.equal(define('d0 1 1 /a /b'), 'd0: "/b": syntax error')
  t.equal(define('d0 1 1 /a -q'), 'd0: "-q": illegal option')
  t.equal(define('d0 1 1 /a -i'), 'd0: "-i": illegal option')
  t.equal(define('d0 1 1 /a -i 3k'), 'd0: "3k": invalid interlace')
  t.equal(define('d0 1 1 /a -i 64x'), '"64x": invalid interlace')
  t.equal(define('d0 2 1 /a -h hsp001 1 /b'), 'd0: "-h": syntax error')
  t.equal(define('d0 1 1 /a -h 5'), '5: Invalid name for metadevice or hot spare pool.')
  t.equal(define('d0 99999999999999999999 1 /a'), 'd0: "99999999999999999999": syntax error')
  t.equal(define('d0 4000000000 1 /a'), 'd0: not enough stripes specified')
})

t.test('mirror grammar', async (t) => {
  const define = (s: string) => {
    const e = commandEntry(s.split(' '))
    const d = e.ok ? definitionOf(e.value) : e
    return d.ok ? d.value : text(d.error)
  }
  const plain = { kind: 'mirror', name: 'd0', read: 'roundrobin', write: 'parallel', pass: 1 }
  t.same(define('d0 -m d1'), { ...plain, submirrors: ['d1'] })
  t.same(define('d0 -m /dev/md/rdsk/d1 d2 -g -S 0'), {
    ...plain,
    submirrors: ['d1', 'd2'],
    read: 'geometric',
    write: 'serial',
    pass: 0,
  })
  t.match(define('d0 -m d1 d2 d3 d4 -rS 9'), { read: 'first', write: 'serial', pass: 9 })
  t.equal(define('d0 -m'), 'd0: not enough submirrors specified')
  t.equal(define('d0 -m 1'), 'd0: not enough submirrors specified')
  t.equal(define('d0 -m a b c d e'), 'd0: mirror has maximum number of submirrors')
  t.equal(define('d0 -m d1 -g -r'), 'd0: "-r": invalid read option')
  t.equal(define('d0 -m d1 -g -g'), 'd0: "-g": invalid read option')
  t.equal(define('d0 -m d1 -S -S'), 'd0: "-S": invalid write option')
  t.equal(define('d0 -m d1 10'), 'd0: "10": invalid pass number')
  t.equal(define('d0 -m d1 1 -g'), 'd0: "-g": syntax error', 'options stop at the pass')
  t.equal(define('d0 -m d1 -p 1'), 'd0: "-p": illegal option')
  t.equal(define('d0 -m d1 1x'), 'd0: "1x": syntax error')
})

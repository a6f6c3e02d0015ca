/** House rules a reader would otherwise have to watch for. Each has a reason beside it. */
import t from 'tap'
import { read, tracked } from './sources.js'

const LONGEST_FILE = 450

interface Rule {
  readonly name: string
  readonly files: RegExp
  readonly forbidden: RegExp
  readonly wrong: string
}

const CODE = /\.(?:ts|cc|h|py|js)$|^scripts\//
const TEXT = /\.(?:ts|cc|h|py|js|md|json|txt|[1-8]|tab|conf|service|yml|sh)$|^scripts\/|^\.ci\//

// Words are put together here so that this file does not trip over itself.
const word = (...parts: readonly string[]): string => parts.join('')
const RULES: readonly Rule[] = [
  {
    name: 'no path of somebody\u2019s machine',
    files: TEXT,
    forbidden: new RegExp(word('(?<![\\w.])/(?:wo', 'rk|ho', 'me/\\w+|Us', 'ers/\\w+)/')),
    wrong: word('cd /wo', 'rk/main'),
  },
  {
    name: 'nothing left to do: an open end is written in the documentation of its limit',
    files: CODE,
    forbidden: new RegExp(word('\\b(?:TO', 'DO|FIX', 'ME|X', 'XX|HA', 'CK)\\b[ :(]')),
    wrong: word('// TO', 'DO: later'),
  },
  {
    name: 'no test left out or alone by accident',
    files: /^test\/.*\.ts$/,
    forbidden: new RegExp(word('\\.on', 'ly\\(|\\bonly: tr', 'ue')),
    wrong: word('t.on', "ly('x')"),
  },
  {
    name: 'the type checker is not silenced',
    files: /\.ts$/,
    forbidden: new RegExp(word('@ts-ig', 'nore|@ts-noch', 'eck|\\bas an', 'y\\b')),
    wrong: word('x as an', 'y'),
  },
  {
    name: 'no merge marker',
    files: TEXT,
    forbidden: /^(?:<{7}|>{7}|={7})(?: |$)/m,
    wrong: `a\n${'<'.repeat(7)} HEAD`,
  },
  {
    name: 'no carriage return, no blank at the end of a line',
    files: CODE,
    forbidden: /\r|[ \t]$/m,
    wrong: 'a \nb',
  },
  {
    name: 'no owning raw pointer',
    files: /^native\/(?!addon\/).*\.(?:cc|h)$/,
    forbidden: /^(?!\s*\/\/)[^"/]*(?:\bmalloc\(|\bdelete\s+\w)/m,
    wrong: '  delete node;',
  },
]

const violations = (rule: Rule, files: readonly string[]): string[] =>
  files
    .filter((f) => rule.files.test(f))
    .flatMap((f) => {
      const text = read(f)
      const m = rule.forbidden.exec(text)
      return m === null ? [] : [`${f}:${text.slice(0, m.index).split('\n').length}: ${m[0].trim()}`]
    })

const files = tracked().filter((f) => !f.startsWith('tap-snapshots/'))

for (const rule of RULES) {
  t.test(rule.name, async (t) => {
    t.match(rule.wrong, rule.forbidden, 'the rule finds its own example')
    t.strictSame(violations(rule, files), [])
  })
}

t.test(`source files stay under ${LONGEST_FILE} lines`, async (t) => {
  const code = files.filter((f) => /^(?:src|cmd|native|bench)\/.*\.(?:ts|cc|h)$/.test(f))
  t.strictSame(
    code.filter((f) => read(f).split('\n').length > LONGEST_FILE),
    [],
  )
})

t.test('a source file says near its beginning what it is', async (t) => {
  const bare = files
    .filter((f) => /^(?:src|native)\/.*\.(?:ts|cc|h)$/.test(f))
    // What belongs to a header is said there, once.
    .filter((f) => !files.includes(f.replace(/\.cc$/, '.h')) || f.endsWith('.h'))
    .filter((f) => !/^\s*(?:\/\*\*|\/\/)/m.test(read(f).split('\n').slice(0, 20).join('\n')))
  t.strictSame(bare, [])
})

t.test('generated files are not committed', async (t) => {
  t.strictSame(
    files.filter((f) => /^(?:bin|build|node_modules)\//.test(f)),
    [],
  )
})

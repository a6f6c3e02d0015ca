import t from 'tap'
import type { Command } from '../../../src/cli/command.js'
import { parseWords } from '../../../src/cli/getopt.js'

const command: Command = {
  name: 'x',
  summary: '',
  synopsis: [''],
  options: [
    { name: 'a', text: '' },
    { name: 'n', text: '' },
    { name: 'c', argument: 'count', text: '' },
    { name: 'json', text: '' },
    { name: 'watch', argument: 'seconds', optional: '2', text: '' },
  ],
  operands: 'none',
  run: async () => 0,
}
const parse = (line: string): string => {
  const r = parseWords(
    command,
    line.split(' ').filter((w) => w !== ''),
  )
  if (!r.ok) return `${r.error.code} ${r.error.option}`
  const values = [...r.value.values].map(([k, v]) => `${k}=${v}`)
  return [...r.value.flags, ...values].join(' ') + ' | ' + r.value.operands.join(' ')
}

t.test('as getopt reads', (t) => {
  for (const [line, want] of [
    ['', ' | '],
    ['-a d0', 'a | d0'],
    ['-an d0', 'a n | d0'],
    ['-anc5 d0', 'a n c=5 | d0'],
    ['-c 5 d0', 'c=5 | d0'],
    ['-c -a d0', 'c=-a | d0'],
    ['-c5 -c6', 'c=6 | '],
    ['d0 -a', ' | d0 -a'],
    ['-n d0 -m d1 -g 1', 'n | d0 -m d1 -g 1'],
    ['d0 1 1 /dev/sdb -i 32k -z --json', ' | d0 1 1 /dev/sdb -i 32k -z --json'],
    ['-a -- -n d0', 'a | -n d0'],
    ['d0 -- -n', ' | d0 -- -n'],
    ['- -a', ' | - -a'],
    ['-?', '? | '],
    ['-h', 'h | '],
    ['-s set d0', 's=set | d0'],
    ['--root /r --json d0', 'json root=/r | d0'],
    ['--root=/r', 'root=/r | '],
    ['--watch d0', 'watch=2 | d0'],
    ['--watch=9 d0', 'watch=9 | d0'],
    ['-z d0', 'illegalOption z'],
    ['-az d0', 'illegalOption z'],
    ['-5 d0', 'illegalOption 5'],
    ['--nonsense', 'illegalOption nonsense'],
    ['-c', 'missingArgument c'],
    ['-ac', 'missingArgument c'],
    ['--root', 'missingArgument root'],
  ] as const) {
    t.equal(parse(line), want, line)
  }
  t.end()
})

t.test('a letter the command takes itself is not help', (t) => {
  const own: Command = { ...command, options: [{ name: 'h', argument: 'hsp', text: '' }] }
  const r = parseWords(own, ['-h', 'hsp001', 'd0'])
  t.strictSame(r.ok && [r.value.values.get('h'), r.value.flags.has('h'), [...r.value.operands]], [
    'hsp001',
    false,
    ['d0'],
  ])
  t.end()
})

import t from 'tap'
import { parseInterlace } from '../../../src/meta/interlace.js'
import { text } from './world.js'

t.test('units', async (t) => {
  const cases: readonly [string, number][] = [
    ['16b', 16],
    ['16B', 16],
    ['8k', 16],
    ['64K', 128],
    ['1m', 2048],
    ['100M', 204800],
    ['8192', 16],
    ['32768', 64],
  ]
  for (const [word, n] of cases) t.same(parseInterlace(word, 'd0'), { ok: true, value: n }, word)
})

t.test('refused', async (t) => {
  const object = (word: string): string => {
    const r = parseInterlace(word, 'd0')
    return r.ok ? 'accepted' : text(r.error)
  }
  for (const word of [
    '15b',
    '7k',
    '8193',
    '512',
    '0',
    '101m',
    '204801b',
    '-8k',
    '1.5m',
    '',
    '8kk',
    '99999999999999999b',
  ])
    t.equal(object(word), `d0: "${word}": invalid interlace`, word)
  t.equal(object('64x'), '"64x": invalid interlace', 'an unknown suffix stands alone')
  t.equal(object('1g'), '"1g": invalid interlace')
})

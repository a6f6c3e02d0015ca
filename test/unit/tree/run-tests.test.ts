/** The runner's arithmetic: a run that says "0 failed" must be one in which everything ran. */
import t from 'tap'
import { countDoctest, countTap, doctestSaid, excerpt, longFirst } from '../../tools/run-tests.js'

const TAP = `TAP version 14
# Subtest: a
    ok 1 - x
    not ok 2 - y
    1..2
not ok 1 - a # time=20ms

ok 2 - c # SKIP no tool
1..2
# { total: 3, pass: 1, fail: 1, skip: 1 }
`

t.test('tap totals are taken as tap gives them', async (t) => {
  t.strictSame(countTap(TAP, 1), { passed: 1, failed: 1, skipped: ['c: no tool'] })
})

t.test('without totals the top level is counted', async (t) => {
  t.strictSame(countTap('ok 1 - a\nok 2 - b # SKIP z\n1..2\n', 0), { passed: 1, failed: 0, skipped: ['b: z'] })
})

t.test('a file that stops early or dies fails, whatever it printed before', async (t) => {
  t.equal(countTap('TAP version 14\nok 1 - a\n', 0).failed, 1, 'no plan')
  t.equal(countTap('ok 1 - a\n1..1\n# { total: 1, pass: 1 }\n', 1).failed, 1, 'bad status after passes')
  t.equal(countTap('', null).failed, 1, 'killed')
})

t.test('a file skipped as a whole is no pass', async (t) => {
  t.strictSame(countTap('TAP version 14\n1..0 # no tool\n', 0), { passed: 0, failed: 0, skipped: ['no tool'] })
})

t.test('doctest summaries are added up, a crash is a failure', async (t) => {
  const line = (p: number, f: number): string =>
    `[doctest] test cases: ${p + f} | ${p} passed | ${f} failed | 0 skipped\n`
  t.strictSame(countDoctest(line(12, 0) + line(3, 1), 1), { passed: 15, failed: 1, skipped: [] })
  t.equal(countDoctest(line(12, 0), 139).failed, 1)
  const said =
    '../a_test.cc:5:\nTEST CASE: x\n\n../a_test.cc:7: MESSAGE: crash states: 5\n\nb.cc:9: ERROR: CHECK( x )\n'
  t.strictSame(doctestSaid(said), ['crash states: 5'])
  t.equal(countDoctest('', 1).failed, 1)
})

t.test('the excerpt begins at the failure', async (t) => {
  const text = `${'ok 1 - a\n'.repeat(200)}    not ok 2 - the reason\n      ---\n`
  t.match(excerpt(text), /the reason/)
})

t.test('files of the folders that take long come first', async (t) => {
  const files = ['test/conformance/a', 'test/fault/z', 'test/property/b', 'test/unit/a', 'test/unit/b']
  const order = ['test/fault/z', 'test/property/b', 'test/conformance/a', 'test/unit/a', 'test/unit/b']
  t.strictSame(longFirst(files), order)
})

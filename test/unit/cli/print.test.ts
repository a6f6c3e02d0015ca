import t from 'tap'
import { Printer, type Sink } from '../../../src/cli/print.js'

type Listener = (e: NodeJS.ErrnoException) => void
const sink = (): Sink & { text: string; fail: Listener } => {
  const s = {
    text: '',
    isTTY: true,
    fail: (_: NodeJS.ErrnoException): void => undefined,
    write: (piece: string): void => {
      s.text += piece
    },
    on: (_: 'error', listener: Listener): void => {
      s.fail = listener
    },
  }
  return s
}
const failure = (code: string): NodeJS.ErrnoException => Object.assign(new Error(code), { code })

t.test('a reader that went away ends the output without a word', (t) => {
  const out = sink()
  const err = sink()
  const p = new Printer(out, err, true)
  p.out('one\n')
  out.fail(failure('EPIPE'))
  p.out('two\n')
  p.progress('three')
  t.strictSame([p.closed, out.text, err.text], [true, 'one\n', ''])
  t.throws(() => out.fail(failure('EIO')), { code: 'EIO' })
  t.end()
})

t.test('the progress line is wiped before anything else', (t) => {
  const out = sink()
  const err = sink()
  const p = new Printer(out, err, true)
  p.progress('a\u001b[5m')
  p.out('x\n')
  p.error('y\n')
  p.wipe()
  t.equal(err.text, '\r\u001b[Ka?[5m\r\u001b[Ky\n')
  p.clear()
  t.equal(out.text, 'x\n\u001b[H\u001b[2J')
  t.end()
})

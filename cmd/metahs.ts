import type { Call, Command } from '../src/cli/command.js'
import { fetchStat } from '../src/cli/stat-fetch.js'
import { longReport } from '../src/cli/stat-long.js'
import { metaError } from '../src/msg/errors.js'
import { printable } from '../src/msg/format.js'

/** -i: the pools of metastat, and the drives of these alone. */
const status = async (call: Call, names: readonly string[]): Promise<number> => {
  const fetched = await fetchStat(call, { probe: false, names }, (e) => {
    if (e.code !== 'unitNotSetUp') return false
    call.fail(metaError('invalidHsp', e.object))
    return true
  })
  const { report } = fetched
  if (report === null) return fetched.status
  const isPool = (name: string): boolean => report.units.some((u) => u.name === name && u.kind === 'pool')
  if (names.length === 0) {
    const pools = report.show.filter(isPool)
    return pools.length === 0 ? call.fail(metaError('noHsps')) : status(call, pools)
  }
  const others = report.show.filter((name) => !isPool(name))
  for (const name of others) call.fail(metaError('invalidHsp', name))
  const failed = others.length > 0 || fetched.status !== 0
  const shown = { ...report, show: report.show.filter(isPool) }
  call.print.out(printable(longReport(shown, { times: false, relocation: !failed })))
  return failed ? 1 : 0
}

const ACTIONS = { a: 'add', d: 'delete', e: 'enable', r: 'replace' } as const

export const command: Command = {
  name: 'metahs',
  summary: 'manage hot spares and hot spare pools',
  synopsis: [
    '[--root DIR] -a hotsparepool [component...]',
    '[--root DIR] -a all component...',
    '[--root DIR] -d hotsparepool [component...]',
    '[--root DIR] -d all component...',
    '[--root DIR] -e component...',
    '[--root DIR] -r hotsparepool|all component-old component-new',
    '[--root DIR] -i [hotsparepool...]',
    '-h',
  ],
  options: [
    { name: 'a', text: 'add components to a pool, or to all; makes the pool' },
    { name: 'd', text: 'delete components from a pool, or from all; without components the empty pool' },
    { name: 'e', text: 'make broken hot spares available again' },
    { name: 'i', text: 'show the pools' },
    { name: 'r', text: 'replace a hot spare by another component' },
  ],
  operands: 'poolOrFile',
  run: async (call) => {
    const letters = (['a', 'd', 'e', 'i', 'r'] as const).filter((letter) => call.flag(letter))
    const [letter] = letters
    if (letter === undefined || letters.length > 1) return call.usage()
    if (letter === 'i') return status(call, call.operands)
    if (call.operands.length < 1 || (letter === 'r' && call.operands.length !== 3)) return call.usage()
    const [first = '', ...rest] = call.operands
    const enable = letter === 'e'
    const pool = enable ? null : first
    const words = enable ? call.operands : rest
    return call.request({ op: 'hotspare', cwd: call.cwd, action: ACTIONS[letter], pool, words })
  },
}

import type { Call, Command } from '../src/cli/command.js'
import { type Fetched, fetchStat } from '../src/cli/stat-fetch.js'
import { longReport } from '../src/cli/stat-long.js'
import { conciseReport, tabReport } from '../src/cli/stat-short.js'
import { watch } from '../src/cli/stat-watch.js'
import { printable } from '../src/msg/format.js'
import type { StatReport, UnitReport } from '../src/msg/report.js'
import { STALE_BANNER, argumentError } from '../src/msg/texts.js'

const fetchReport = (call: Call): Promise<Fetched> =>
  fetchStat(call, { probe: call.flag('i'), names: call.operands }, (e) => {
    if (e.code !== 'notRoot' || !call.flag('i')) return false
    call.print.error(`metastat: ${argumentError('probeNeedsRoot')}\n`)
    return true
  })

const BIG_BLOCKS = 2 ** 31
const isBig = (u: UnitReport): boolean =>
  u.kind === 'pool' ? u.spares.some((s) => s.size > BIG_BLOCKS) : u.size > BIG_BLOCKS

/** -B: sizes that need 64-bit records; -D: names that are not a d and a number, or hsp and three digits. */
const filtered = (call: Call, r: StatReport): StatReport => {
  const big = new Set(r.units.filter(isBig).map((u) => u.name))
  const plain = /^(?:d\d+|hsp\d{3})$/
  const show = r.show.filter((n) => (!call.flag('B') || big.has(n)) && (!call.flag('D') || !plain.test(n)))
  return { ...r, show }
}

const printReport = (call: Call, r: StatReport, failed: boolean): void => {
  const tab = call.flag('p')
  // Not among the lines of -p: they are there to be fed to metainit.
  if (r.stale && tab) call.print.error(STALE_BANNER)
  else if (r.stale) call.print.out(STALE_BANNER)
  if (tab) call.print.out(printable(tabReport(r)))
  else if (call.flag('c')) call.print.out(printable(conciseReport(r)))
  else call.print.out(printable(longReport(r, { times: call.flag('t'), relocation: !call.flag('q') && !failed })))
  if (call.flag('a')) call.print.out('\n')
}

export const command: Command = {
  name: 'metastat',
  summary: 'show the status of metadevices and hot spare pools',
  synopsis: [
    '[-a | -s setname] [-cpqtiBD] [--json] [--root DIR] [metadevice|hotsparepool...]',
    '--watch[=seconds] [metadevice...]',
    '-h',
  ],
  options: [
    { name: 'a', text: 'every set of this host' },
    { name: 'B', text: 'only metadevices above 1 TB' },
    { name: 'c', text: 'concise, one line per metadevice' },
    { name: 'D', text: 'only metadevices with free-form names' },
    { name: 'i', text: 'probe the components first' },
    { name: 'json', text: 'the whole report as JSON' },
    { name: 'p', text: 'in the form of md.tab' },
    { name: 'q', text: 'no device relocation information' },
    { name: 'r', text: 'accepted and ignored' },
    { name: 't', text: 'with the times of the last state changes' },
    { name: 'watch', argument: 'seconds', optional: '2', text: 'follow the resyncs until they end' },
  ],
  operands: 'unit',
  run: async (call) => {
    if (call.flag('a') && call.value('s') !== null) return call.usage('incompatibleAllSet')
    const seconds = call.value('watch')
    if (seconds !== null) {
      const n = Number(seconds)
      if (!(n >= 1 && n <= 3600)) return call.usage('badInterval', seconds)
      return watch(call, n, () => fetchReport(call))
    }
    const { status, report } = await fetchReport(call)
    if (report === null) return status
    const shown = filtered(call, report)
    if (call.flag('json')) call.print.out(`${JSON.stringify({ schema: 1, ...shown }, null, 2)}\n`)
    else printReport(call, shown, status !== 0)
    return status
  },
}

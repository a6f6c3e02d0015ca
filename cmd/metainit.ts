import type { Command } from '../src/cli/command.js'
import { fetchAtBoot } from '../src/cli/stat-fetch.js'
import { metaError } from '../src/msg/errors.js'

/** Exit status of a start whose state database is stale (commands.md 0.4). */
const STALE = 66

/** `-r`, the boot form: metad configures at its own start, so this only asks how that went. */
const boot: Command['run'] = async (call) => {
  const { status, report, empty } = await fetchAtBoot(call)
  if (empty) return 0
  if (report?.stale !== true) return status
  call.fail(metaError('stale'))
  return STALE
}

export const command: Command = {
  name: 'metainit',
  summary: 'create metadevices and hot spare pools',
  synopsis: [
    '[-n] [-f] [--root DIR] name numstripes width component... [-i interlace]',
    '\t[width component... [-i interlace]] [-h hotsparepool]',
    '[-n] [-f] [--root DIR] mirror -m submirror... [-g | -r] [-S] [pass]',
    '[-n] [--root DIR] RAID -r component... [-i interlace] [-h hotsparepool]',
    '\t[-k] [-o columns] [-w writes]',
    '[-n] [--root DIR] hotsparepool [component...]',
    '[-n] [-f] [--root DIR] name',
    '[-n] [-f] [--root DIR] -a',
    '-r',
    '-h',
  ],
  options: [
    { name: 'a', text: 'create everything in md.tab' },
    { name: 'f', text: 'proceed although a component is mounted or used for swapping' },
    { name: 'n', text: 'check only, change nothing' },
    { name: 'r', text: 'boot form: succeed when metad has brought everything back' },
  ],
  operands: 'both',
  run: (call) => {
    const all = call.flag('a')
    const words = call.operands
    if (call.flag('r')) return all || words.length > 0 ? Promise.resolve(call.usage()) : boot(call)
    if (all === words.length > 0) return Promise.resolve(call.usage())
    return call.request({ op: 'init', cwd: call.cwd, check: call.flag('n'), force: call.flag('f'), all, words })
  },
}

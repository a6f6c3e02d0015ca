import type { Call, Command } from '../src/cli/command.js'
import { fetchAtBoot } from '../src/cli/stat-fetch.js'

/** A device that fails makes the daemon answer 255 (commands.md 0.4); not reaching it is 1 as everywhere. */
const sync = (call: Call, cancel: boolean, bufferBlocks: number | null, names: readonly string[]): Promise<number> =>
  call.request({ op: 'sync', cancel, restart: false, verify: null, bufferBlocks, names })

/** `-r`, the boot form: mirrors by pass number, pass 0 never. No state database is no error at boot. */
const boot = async (call: Call, buffer: number | null): Promise<number> => {
  const { status, report, empty } = await fetchAtBoot(call)
  if (empty) return 0
  if (status !== 0 || report === null) return status
  const mirrors = report.units.flatMap((u) => (u.kind === 'mirror' && u.pass > 0 ? [u] : []))
  const names = mirrors.toSorted((a, b) => a.pass - b.pass).map((m) => m.name)
  return names.length === 0 ? 0 : sync(call, false, buffer, names)
}

export const command: Command = {
  name: 'metasync',
  summary: 'start or cancel the resync of mirrors',
  synopsis: [
    '[--root DIR] [buffer_size] metadevice...',
    '[--root DIR] -c metadevice...',
    '[--root DIR] -r [buffer_size]',
    '-h',
  ],
  options: [
    { name: 'c', text: 'cancel the running resync; a plain metasync goes on from there' },
    { name: 'r', text: 'boot form: every mirror that needs it, by pass number' },
  ],
  operands: 'metadevice',
  run: async (call) => {
    const cancel = call.flag('c')
    const [first, ...rest] = call.operands
    if (first !== undefined && /^-\d+$/.test(first)) return call.usage('illegalBufferSize', first)
    const given = first !== undefined && /^\d+$/.test(first)
    const names = given ? rest : call.operands
    const size = given ? Number(first) : 0
    if (!Number.isSafeInteger(size)) return call.usage('illegalBufferSize', String(first))
    const buffer = size === 0 ? null : size
    if (call.flag('r')) return cancel || names.length > 0 ? call.usage() : boot(call, buffer)
    if (names.length === 0 || (cancel && given)) return call.usage()
    return sync(call, cancel, buffer, names)
  },
}

import type { Call, Command } from '../src/cli/command.js'
import { fetchAtBoot } from '../src/cli/stat-fetch.js'
import { formatVerify } from '../src/msg/format.js'

type Sync = Extract<Parameters<Call['request']>[0], { readonly op: 'sync' }>

const NOTHING = { cancel: false, parity: false, restart: false }

/** Sides that differ are a finding, not a failure of the command. */
const DIFFERS = 2

/** A device that fails makes the daemon answer 255 (commands.md 0.4); not reaching it is 1 as everywhere. */
const sync = (call: Call, what: Partial<Sync>): Promise<number> =>
  call.request({ op: 'sync', ...NOTHING, verify: null, bufferBlocks: null, names: [], ...what })

/** `-r`, the boot form: by pass number, pass 0 never. No state database is no error at boot. */
const boot = async (call: Call, bufferBlocks: number | null): Promise<number> => {
  const { status, report, empty } = await fetchAtBoot(call)
  if (empty) return 0
  return status !== 0 || report === null ? status : sync(call, { restart: true, bufferBlocks })
}

const verify = async (call: Call, what: Partial<Sync>): Promise<number> => {
  let differs = false
  const json = call.flag('json')
  const all: object[] = []
  const status = await call.request(
    { op: 'sync', ...NOTHING, verify: 'check', bufferBlocks: null, names: [], ...what },
    (reply) => {
      if (reply.reply !== 'verified') return false
      differs ||= reply.report.mismatchBlocks > 0 && !reply.report.repaired
      if (json) all.push(reply.report)
      else call.print.out(formatVerify(reply.report))
      return true
    },
  )
  if (json) call.print.out(`${JSON.stringify({ schema: 1, verified: all }, null, 2)}\n`)
  return status === 0 && differs ? DIFFERS : status
}

export const command: Command = {
  name: 'metasync',
  summary: 'start or cancel the resync of mirrors and RAID5, or compare what must agree',
  synopsis: [
    '[--root DIR] [-p] [buffer_size] metadevice...',
    '[--root DIR] -c metadevice...',
    '[--root DIR] -r [buffer_size]',
    '[--root DIR] --verify [--repair] [--json] [buffer_size] metadevice...',
    '-h',
  ],
  options: [
    { name: 'c', text: 'cancel the running resync; a plain metasync goes on from there' },
    { name: 'p', text: 'make all parity of RAID5 metadevices again' },
    { name: 'r', text: 'boot form: every mirror that needs it, by pass number, then RAID5' },
    { name: 'verify', text: 'compare the sides of mirrors, or RAID5 data and parity; status 2 when they differ' },
    { name: 'repair', text: 'with --verify: make the others equal to the first side in step, parity to the data' },
    { name: 'json', text: 'with --verify: print the result as JSON' },
  ],
  operands: 'metadevice',
  run: async (call) => {
    const [cancel, restart, comparing, parity] = [call.flag('c'), call.flag('r'), call.flag('verify'), call.flag('p')]
    const [first, ...rest] = call.operands
    if (first !== undefined && /^-\d+$/.test(first)) return call.usage('illegalBufferSize', first)
    const given = first !== undefined && /^\d+$/.test(first)
    const names = given ? rest : call.operands
    const size = given ? Number(first) : 0
    if (!Number.isSafeInteger(size)) return call.usage('illegalBufferSize', String(first))
    const bufferBlocks = size === 0 ? null : size
    if ([cancel, restart, comparing, parity].filter(Boolean).length > 1) return call.usage()
    if (!comparing && (call.flag('repair') || call.flag('json'))) return call.usage()
    if (restart) return names.length > 0 ? call.usage() : boot(call, bufferBlocks)
    if (names.length === 0 || (cancel && given)) return call.usage()
    if (comparing) return verify(call, { verify: call.flag('repair') ? 'repair' : 'check', bufferBlocks, names })
    return sync(call, { cancel, parity, bufferBlocks, names })
  },
}

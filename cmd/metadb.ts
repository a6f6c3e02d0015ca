import { join } from 'node:path'
import type { Call, Command } from '../src/cli/command.js'
import { replicaList } from '../src/cli/replicas.js'
import { replicaLegend } from '../src/msg/texts.js'
import type { ReplicaReport } from '../src/msg/report.js'

/** commands.md 5.1 */
const MIN_BLOCKS = 16
const MAX_BLOCKS = 8192

const list = async (call: Call): Promise<number> => {
  const got: { replicas: readonly ReplicaReport[] | null } = { replicas: null }
  const status = await call.request({ op: 'dbList' }, (reply) => {
    if (reply.reply === 'replicas') got.replicas = reply.replicas
    return reply.reply === 'replicas'
  })
  const shown = got.replicas
  if (shown === null) return status
  if (call.flag('json')) {
    call.print.out(`${JSON.stringify({ schema: 1, replicas: shown }, null, 2)}\n`)
    return status
  }
  call.print.out(replicaList(shown))
  if (call.flag('i') && shown.length > 0) {
    call.print.out(replicaLegend(join(call.etc, 'mddb.cf')))
    for (const r of shown) if (r.problem !== null) call.print.error(`metadb: ${r.path}: ${r.problem}\n`)
  }
  return status
}

const add = async (call: Call): Promise<number> => {
  const numbers = { c: call.value('c') ?? '1', l: call.value('l') }
  for (const n of [numbers.c, numbers.l]) if (n !== null && !/^\d{1,15}$/.test(n)) return call.usage('badFormat', n)
  const count = Number(numbers.c)
  const length = numbers.l === null ? null : Number(numbers.l)
  if (count < 1) return call.usage('countTooSmall')
  if (length !== null && length > MAX_BLOCKS) return call.usage('sizeTooBig')
  if (length !== null && length < MIN_BLOCKS) return call.usage('sizeTooSmall')
  if (call.operands.length === 0) return call.usage('noDevices')
  return call.request({ op: 'dbAdd', cwd: call.cwd, force: call.flag('f'), count, length, words: call.operands })
}

export const command: Command = {
  name: 'metadb',
  summary: 'list, create and delete state database replicas',
  synopsis: [
    '-a [-f] [-c count] [-l length] [--root DIR] place... | mddbNN...',
    '-d [-f] [--root DIR] place... | mddbNN...',
    '[-i] [--json] [--root DIR]',
    '-p [--root DIR] [mddb.cf]',
    '-h',
  ],
  options: [
    { name: 'a', text: 'create replicas' },
    { name: 'c', argument: 'count', text: 'replicas at each place (default 1)' },
    { name: 'd', text: 'delete all replicas at each place' },
    { name: 'f', text: 'create the first, or delete the last, replicas' },
    { name: 'i', text: 'list with an explanation of the flags' },
    { name: 'json', text: 'list as JSON' },
    { name: 'l', argument: 'length', text: 'size of a replica in 512-byte blocks, 16 to 8192' },
    { name: 'p', text: 'take the locations from mddb.cf' },
  ],
  operands: 'file',
  run: async (call) => {
    const actions = ['a', 'd', 'p'].filter((o) => call.flag(o))
    if (actions.length > 1) return call.usage('unknownCommand')
    if (call.flag('a')) return add(call)
    if (call.flag('d')) {
      if (call.operands.length === 0) return call.usage('noDevices')
      return call.request({ op: 'dbDelete', cwd: call.cwd, force: call.flag('f'), words: call.operands })
    }
    if (call.operands.length > (call.flag('p') ? 1 : 0)) return call.usage('tooManyArguments')
    if (call.flag('p')) return call.request({ op: 'dbLocations', cwd: call.cwd, file: call.operands[0] ?? null })
    return list(call)
  },
}

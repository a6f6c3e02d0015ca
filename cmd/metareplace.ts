import type { Command } from '../src/cli/command.js'

export const command: Command = {
  name: 'metareplace',
  summary: 'enable or replace a component of a mirror or RAID5',
  synopsis: ['[-f] [--root DIR] -e mirror|RAID component', '[-f] [--root DIR] mirror|RAID old new', '-h'],
  options: [
    { name: 'e', text: 'enable: use the same component again' },
    { name: 'f', text: 'of a RAID5 metadevice with more than one failed column' },
  ],
  operands: 'both',
  run: async (call) => {
    const [unit, old, ...rest] = call.operands
    const enable = call.flag('e')
    if (unit === undefined || old === undefined || rest.length !== (enable ? 0 : 1)) return call.usage()
    return call.request({
      op: 'replace',
      cwd: call.cwd,
      force: call.flag('f'),
      unit,
      old,
      new: rest[0] ?? null,
    })
  },
}

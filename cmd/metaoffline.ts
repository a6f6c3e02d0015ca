import type { Command } from '../src/cli/command.js'

export const command: Command = {
  name: 'metaoffline',
  summary: 'take a submirror out of service for a while',
  synopsis: ['[-f] [--root DIR] mirror submirror', '-h'],
  options: [{ name: 'f', text: 'also when the submirror is not Okay' }],
  operands: 'metadevice',
  run: async (call) => {
    const [mirror, submirror] = call.operands
    if (mirror === undefined || submirror === undefined || call.operands.length !== 2) return call.usage()
    return call.request({ op: 'offline', force: call.flag('f'), mirror, submirror })
  },
}

import type { Command } from '../src/cli/command.js'

export const command: Command = {
  name: 'metaonline',
  summary: 'bring an offline submirror back into service',
  synopsis: ['[--root DIR] mirror submirror', '-h'],
  options: [],
  operands: 'metadevice',
  run: async (call) => {
    const [mirror, submirror] = call.operands
    if (mirror === undefined || submirror === undefined || call.operands.length !== 2) return call.usage()
    return call.request({ op: 'online', force: false, mirror, submirror })
  },
}

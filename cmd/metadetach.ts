import type { Command } from '../src/cli/command.js'

export const command: Command = {
  name: 'metadetach',
  summary: 'detach a submirror from a mirror',
  synopsis: ['[-f] [--root DIR] mirror submirror', '-h'],
  options: [{ name: 'f', text: 'detach although a component of the submirror has erred' }],
  operands: 'metadevice',
  run: async (call) => {
    if (call.operands.length !== 2) return call.usage()
    return call.request({ op: 'detach', force: call.flag('f'), words: call.operands })
  },
}

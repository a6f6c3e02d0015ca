import type { Command } from '../src/cli/command.js'

export const command: Command = {
  name: 'metaclear',
  summary: 'delete metadevices and hot spare pools',
  synopsis: [
    '[-f] [--root DIR] -a',
    '[-f] [-r] [--root DIR] metadevice|hotsparepool...',
    '[-f] [--root DIR] -p component...',
    '-h',
  ],
  options: [
    { name: 'a', text: 'clear every metadevice and hot spare pool; implies -f' },
    { name: 'f', text: 'clear mirrors whose submirrors need maintenance' },
    { name: 'p', text: 'clear all soft partitions on each component' },
    { name: 'r', text: 'also clear what the metadevice is built on; implies -f' },
  ],
  operands: 'unit',
  run: async (call) => {
    const all = call.flag('a')
    const recursive = call.flag('r')
    const softPartitions = call.flag('p')
    if (all === call.operands.length > 0 || (all && softPartitions)) return call.usage()
    const force = all || recursive || call.flag('f')
    return call.request({ op: 'clear', check: false, all, force, recursive, softPartitions, names: call.operands })
  },
}

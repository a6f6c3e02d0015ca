import type { Command } from '../src/cli/command.js'

/** -h takes an argument here, so it is not help. */
export const command: Command = {
  name: 'metaparam',
  summary: 'show or change parameters of metadevices',
  synopsis: [
    '[-r roundrobin|geometric|first] [-w parallel|serial] [-p 0-9] [--root DIR] mirror',
    '[-h hotsparepool|none] [--root DIR] concat/stripe|RAID',
  ],
  options: [
    { name: 'h', argument: 'hsp', text: 'hot spare pool of a concat/stripe or RAID, or none' },
    { name: 'p', argument: 'pass', text: 'resync pass of a mirror, 0 to 9; 0: never at boot' },
    { name: 'r', argument: 'read', text: 'read option of a mirror: roundrobin, geometric or first' },
    { name: 'w', argument: 'write', text: 'write option of a mirror: parallel or serial' },
  ],
  operands: 'metadevice',
  run: async (call) => {
    const [name] = call.operands
    if (name === undefined || call.operands.length !== 1) return call.usage()
    const mirror = { read: call.value('r'), write: call.value('w'), pass: call.value('p') }
    const hotSparePool = call.value('h')
    // No metadevice has both, whatever its type.
    if (hotSparePool !== null && Object.values(mirror).some((v) => v !== null)) return call.usage()
    // Options of another type of metadevice are a usage error, but only metad knows the type.
    return call.request({ op: 'param', name, ...mirror, hotSparePool }, (reply) => {
      const wrong = reply.reply === 'error' && reply.error.code === 'illegalOption'
      if (wrong) call.usage()
      return wrong
    })
  },
}

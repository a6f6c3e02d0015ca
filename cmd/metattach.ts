import type { Command } from '../src/cli/command.js'

export const command: Command = {
  name: 'metattach',
  summary: 'attach a submirror to a mirror, or components to a concat/stripe or RAID5',
  synopsis: [
    '[-n] [--root DIR] mirror [submirror]',
    '[-n] [-i interlace] [--root DIR] concat/stripe component...',
    '[--root DIR] RAID component...',
    '-h',
  ],
  options: [
    { name: 'i', argument: 'interlace', text: 'interlace of the new row (default: that of the last row)' },
    { name: 'n', text: 'check only, change nothing' },
  ],
  operands: 'both',
  run: async (call) => {
    if (call.operands.length === 0) return call.usage()
    const interlace = call.value('i')
    return call.request({ op: 'attach', cwd: call.cwd, check: call.flag('n'), interlace, words: call.operands })
  },
}

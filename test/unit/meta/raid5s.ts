/** RAID5 devices in any state, for tests of meta/, and short ways to say what became of them. */
import { blocks } from '../../../src/base/units.js'
import { advanceRaid5, type Raid5Event } from '../../../src/meta/raid5state.js'
import { withUnits } from '../../../src/meta/tree.js'
import type { Column, ColumnState, Raid5Unit, Slice, Tree } from '../../../src/meta/types.js'
import { CYLINDER, device, name } from './world.js'

export const slice = (path: string, size = 100 * CYLINDER): Slice => {
  const { name: n, identity, extent, offset } = device(path, size)
  return { name: n, path, identity, extent, offset, size: blocks(size), start: blocks(0) }
}

/** Of 1024 blocks, 320 of prewrite and 199 lines: 204096 blocks of each column of 100 cylinders. */
export const LAYOUT = { interlace: blocks(1024), lines: 199, prewrite: blocks(320), slots: 10 } as const
export const COLUMN_BLOCKS = LAYOUT.prewrite + LAYOUT.lines * LAYOUT.interlace

/**
 * `okay erred okay | init`: d5 of /disks/a, /disks/b, ... and behind the bar what does not serve yet.
 * `facts` of columns by the end of their name.
 */
export const raid5 = (
  states: string,
  facts: Partial<Raid5Unit> = {},
  columns: Readonly<Record<string, Partial<Column>>> = {},
): Raid5Unit => {
  const [serving = '', joining = ''] = states.split('|').map((s) => s.trim())
  const all = [...serving.split(' '), ...(joining === '' ? [] : joining.split(' '))]
  const count = serving.split(' ').length
  const blocksOf = LAYOUT.interlace * LAYOUT.lines * (count - 1)
  return {
    kind: 'raid5',
    name: name('d5'),
    minor: 5,
    columns: all.map((state, i) => {
      const letter = 'abcdefgh'[i] ?? ''
      return {
        ...slice(`/disks/${letter}`),
        state: state as ColumnState,
        erredOrder: state === 'okay' ? 0 : i + 1,
        spare: null,
        changed: 1000,
        ...columns[letter],
      }
    }),
    originals: 3,
    serving: count,
    ...LAYOUT,
    hotSparePool: null,
    geometry: { heads: 64, sectors: 32 },
    actualBlocks: blocks(blocksOf),
    blocks: blocks(blocksOf - (blocksOf % CYLINDER)),
    errors: 8,
    journal: { unit: 77, epoch: 1 },
    checkpoint: null,
    regen: false,
    copy: null,
    ...facts,
  }
}

export const statesOf = (u: Raid5Unit): string => {
  const states = u.columns.map((c) => c.state)
  const joining = states.slice(u.serving)
  return [states.slice(0, u.serving).join(' '), ...(joining.length === 0 ? [] : [joining.join(' ')])].join(' | ')
}
export const raid5In = (tree: Tree, unit = 'd5'): Raid5Unit => {
  const u = tree.get(name(unit))
  if (u?.kind !== 'raid5') throw new Error(`no RAID5 ${unit}`)
  return u
}
export const treeWith = (...units: readonly Raid5Unit[]): Tree => withUnits(new Map(), units)

export interface AfterRaid5 {
  readonly unit: Raid5Unit
  readonly states: string
  readonly notices: readonly string[]
}
/** What follows from the events, or `illegal: ...` of the one that did not fit. */
export const afterRaid5 = (unit: Raid5Unit, ...events: readonly Raid5Event[]): AfterRaid5 | string => {
  let u = unit
  const notices: string[] = []
  for (const e of events) {
    const next = advanceRaid5(u, e, 5000)
    if (!next.ok) return `illegal: ${next.error.event} of ${next.error.column ?? '-'} in ${next.error.state}`
    u = next.value.unit
    notices.push(...next.value.notices.map((n) => n.text))
  }
  return { unit: u, states: statesOf(u), notices }
}

import t from 'tap'
import { blocks } from '../../../src/base/units.js'
import { inServiceOf, recovered } from '../../../src/daemon/recovery.js'
import type { MirrorUnit, Submirror, SubmirrorState, UnitName } from '../../../src/meta/types.js'

const d0 = 'd0' as UnitName
const mirror = (states: readonly SubmirrorState[], pass = 1): MirrorUnit => ({
  kind: 'mirror',
  name: d0,
  minor: 0,
  submirrors: states.map((state, slot): Submirror => ({
    slot: slot as 0 | 1 | 2 | 3,
    unit: `d1${slot}` as UnitName,
    state,
    changed: 0,
  })),
  read: 'roundrobin',
  write: 'parallel',
  pass,
  geometry: { heads: 64, sectors: 32 },
  labelled: false,
  blocks: blocks(2048),
  errors: 0,
  regionBlocks: blocks(2048),
  cancelled: false,
  checkpoint: null,
})
const after = (m: MirrorUnit, dirty = true): readonly SubmirrorState[] | undefined => {
  const unit = recovered(new Map([[d0, m]]), new Set(dirty ? [d0] : [])).put[0]
  return unit?.kind === 'mirror' ? unit.submirrors.map((s) => s.state) : undefined
}

t.test('the first side in step stays the source, the others are copied again', async (t) => {
  t.same(after(mirror(['okay', 'okay', 'okay'])), ['okay', 'resync', 'resync'])
  t.same(after(mirror(['attached', 'okay', 'okay'])), ['attached', 'okay', 'resync'])
})

t.test('nothing changes where nothing was open, one side is left, or pass 0 says so', async (t) => {
  t.equal(after(mirror(['okay', 'okay']), false), undefined)
  t.equal(after(mirror(['okay'])), undefined)
  t.equal(after(mirror(['okay', 'offline'])), undefined)
  t.equal(after(mirror(['okay', 'okay'], 0)), undefined)
})

t.test('a side that cannot be served is left out, the record is not touched', async (t) => {
  const m = mirror(['okay', 'okay'])
  t.equal(
    inServiceOf(m, () => true),
    m,
  )
  t.same(
    inServiceOf(m, (s) => s.slot === 1).submirrors.map((s) => s.slot),
    [1],
  )
})

/** The order decide, commit, install, settle, and what happens to it when something comes in between. */
import t from 'tap'
import { ok } from '../../../src/base/result.js'
import { blocks } from '../../../src/base/units.js'
import { Faults } from '../../../src/daemon/faults.js'
import { State } from '../../../src/daemon/state.js'
import { outcome } from '../../../src/meta/operations.js'
import type { Tree } from '../../../src/meta/types.js'
import type { NativeEvent } from '../../../src/plan/events.js'
import type { ComponentId } from '../../../src/plan/types.js'
import { componentStates } from '../meta/mirrors.js'
import { name, treeOf } from '../meta/world.js'
import { Gate, settled } from './gate.js'

const TREE = treeOf(['d1 1 1 /disks/a', 'd2 1 1 /disks/b', 'd0 -m d1 d2', 'd9 1 1 /disks/c'])
const DEVICES = new Map([
  [1, name('d0')],
  [9, name('d9')],
])
/** Components are numbered by their letter. */
const number = (path: string): ComponentId => path.charCodeAt(path.length - 1) as ComponentId
const A = number('/disks/a')
const B = number('/disks/b')

const rig = async (tree: Tree = TREE, readErrorLimit = 2) => {
  const gate = Gate.of(tree)
  const state = new State(gate)
  state.load()
  // The dirty region logs are there before anything can fail.
  const begun = state.perform((now) => ok(outcome(now, {})))
  await gate.let(true)
  await begun
  const log: string[] = []
  const readErrors = new Map<number, number>()
  let generation = 1
  const shown = { swaps: true }
  const faults = new Faults({
    config: { componentReadErrors: readErrorLimit },
    state,
    engine: { settle: (device, hold, verdict) => log.push(`settle ${device} ${hold} ${verdict}`) },
    metadevices: { nameOf: (d) => DEVICES.get(d), generationOf: () => generation },
    components: {
      nameOf: (id) => `/disks/${String.fromCharCode(id)}`,
      isOf: (id, c) => number(c.path) === id,
      countReadError: (id) => {
        const n = (readErrors.get(id) ?? 0) + 1
        readErrors.set(id, n)
        return n
      },
    },
    serving: {
      show: (unit) => {
        log.push(`show ${unit} ${componentStates(state.tree)}`)
        if (shown.swaps) generation++
        return Promise.resolve(shown.swaps)
      },
    },
    log: {
      debug: () => undefined,
      error: (e: unknown) => log.push(`error ${JSON.stringify(e)}`),
    },
    notice: (level, text) => log.push(`${level} ${text}`),
    decided: (unit) => log.push(`decided ${unit}`),
  })
  return { gate, state, faults, log, shown }
}
type ErrorEvent = Extract<NativeEvent, { kind: 'componentError' }>
const failed = (component: ComponentId, facts: Partial<ErrorEvent> = {}): ErrorEvent => ({
  kind: 'componentError',
  device: 1,
  generation: 1,
  component,
  op: 'write',
  block: blocks(8),
  errno: 5,
  masked: true,
  repairFailed: false,
  ...facts,
})
const held = (hold: number, generation = 1, device = 1): NativeEvent & { kind: 'held' } => ({
  kind: 'held',
  device,
  generation,
  hold,
})

t.test('a failed write is answered after its component is in Maintenance, durably and in the plan', async (t) => {
  const { gate, faults, log } = await rig()
  faults.event(failed(A))
  faults.event(failed(A, { block: blocks(16) }))
  faults.event(held(7))
  await settled()
  t.same(log, ['warning md: d1: write error on /disks/a'], 'said at once, nothing else before the commit')
  await gate.let(true)
  await faults.idle()
  t.same(log.slice(1), [
    'warning md: d1: /disks/a needs maintenance',
    'show d0 erred | okay',
    'settle 1 7 resume',
    'decided d0',
  ])
  t.equal(gate.waiting.length, 0, 'one commit for all of them')
})

t.test('a commit that fails fails the requests, and no plan is swapped', async (t) => {
  const { gate, faults, log } = await rig()
  faults.event(failed(A))
  faults.event(held(7))
  await gate.let(false)
  await faults.idle()
  t.ok(log.includes('settle 1 7 fail'))
  t.notOk(log.some((l) => l.startsWith('show')))
})

t.test('an error that comes during a decision is the next one', async (t) => {
  const { gate, faults, log } = await rig()
  faults.event(failed(A))
  faults.event(held(7))
  await settled()
  faults.event(failed(B))
  await gate.let(true)
  t.ok(log.includes('settle 1 7 resume'), 'the hold does not wait for it')
  await gate.let(true)
  await faults.idle()
  t.same(
    log.filter((l) => l.startsWith('show')),
    ['show d0 erred | okay', 'show d0 erred | lastErred'],
  )
})

t.test('a hold of its own generation that nothing can change is not resumed for ever', async (t) => {
  const { faults, log, shown } = await rig()
  shown.swaps = false
  faults.event(held(7))
  await faults.idle()
  t.equal(log.at(-1), 'settle 1 7 fail')
  faults.event(held(8, 0))
  await faults.idle()
  t.equal(log.at(-1), 'settle 1 8 resume', 'one of an older plan meets another one now')
})

t.test('a metadevice that goes takes nothing with it unanswered', async (t) => {
  const { gate, faults, log } = await rig()
  faults.event(failed(A))
  faults.event(held(7))
  await settled()
  faults.giveUp(1)
  t.equal(log.at(-1), 'settle 1 7 fail')
  await gate.let(true)
  await faults.idle()
  t.same(
    log.filter((l) => l.startsWith('settle')),
    ['settle 1 7 fail'],
    'and only once',
  )
  faults.event(held(3, 1, 5))
  await faults.idle()
  t.equal(log.at(-1), 'settle 5 3 fail', 'one that is gone already')
})

t.test(
  'read errors: repaired ones count, too many or one that cannot be repaired take the component out',
  async (t) => {
    const { gate, faults, state } = await rig()
    faults.event(failed(A, { op: 'read' }))
    faults.event(failed(A, { op: 'read' }))
    await faults.idle()
    t.equal(componentStates(state.tree), 'okay | okay')
    faults.event(failed(A, { op: 'read' }))
    await gate.let(true)
    await faults.idle()
    t.equal(componentStates(state.tree), 'erred | okay', 'the third of two')
    const other = await rig()
    other.faults.event(failed(B, { op: 'read', repairFailed: true }))
    await other.gate.let(true)
    t.equal(componentStates(other.state.tree), 'okay | erred')
  },
)

t.test('a read that hangs is believed at once', async (t) => {
  const { gate, faults, state } = await rig()
  faults.event(failed(A, { op: 'read', errno: 110 }))
  await gate.let(true)
  t.equal(componentStates(state.tree), 'erred | okay')
})

t.test('a block that is bad on every side costs the block, not a disk', async (t) => {
  const { faults, state } = await rig()
  faults.event(failed(A, { op: 'read', masked: false }))
  faults.event(failed(B, { op: 'read', masked: false }))
  await faults.idle()
  t.equal(componentStates(state.tree), 'okay | okay')
})

t.test('a stripe outside a mirror has no states: its errors are said', async (t) => {
  const { faults, log } = await rig()
  faults.event(failed(number('/disks/c'), { device: 9, masked: false }))
  await faults.idle()
  t.equal(log[0], 'warning md: d9: write error on /disks/c')
})

t.test('one line a second for a component and operation', async (t) => {
  const { faults, log } = await rig()
  for (let i = 0; i < 50; i++) faults.event(failed(A, { op: 'read' }))
  t.same(log, ['warning md: d1: read error on /disks/a'])
})

t.test('a block that was rewritten is said, and nothing is decided', async (t) => {
  const { faults, log, state } = await rig()
  const repaired = { device: 1, generation: 1, component: B, block: blocks(96), blocks: blocks(8) }
  for (let i = 0; i < 9; i++) faults.event({ kind: 'componentRepaired', ...repaired })
  await faults.idle()
  t.same(log, ['notice md: d2: read error on /disks/b repaired: 8 blocks rewritten at block 96'])
  t.equal(componentStates(state.tree), 'okay | okay')
})

import fc from 'fast-check'
import t from 'tap'
import {
  type Lists,
  type Reading,
  type Version,
  choose,
  commitHolds,
  compareVersions,
  deleteMakesStale,
  half,
  majority,
  sameVersion,
  startHolds,
} from '../../../src/db/quorum.js'

const SEED = Number(process.env['SEED'] ?? 20261)
const ids = (n: number): string[] => Array.from({ length: n }, (_, i) => 'abcdefgh'.charAt(i))
const subsets = (all: readonly string[]): Set<string>[] =>
  Array.from({ length: 2 ** all.length }, (_, m) => new Set(all.filter((_x, i) => (m >> i) & 1)))
const old: Version = { term: 3, epoch: 10 }
const newer: Version = { term: 3, epoch: 11 }

const t1 = { list: ids(1), previous: null }
t.test('numbers of SVM', async (t) => {
  t.same([1, 2, 3, 4, 5].map(half), [1, 1, 2, 2, 3])
  t.same([1, 2, 3, 4, 5].map(majority), [1, 2, 2, 3, 3])
  t.notOk(startHolds({ list: [], previous: null }, new Set()), 'an empty list never starts')
  t.ok(startHolds(t1, new Set(['a'])))
  t.equal(choose([]), undefined)
})

t.test('1..5 replicas, every set of holders, every set of readable ones', async (t) => {
  for (let n = 1; n <= 5; n++) {
    const list = ids(n)
    for (const holders of subsets(list)) {
      for (const seen of subsets(list)) {
        if (seen.size === 0) continue
        const readings = [...seen].map((id): Reading => ({
          id,
          version: holders.has(id) ? newer : old,
          list,
          previous: null,
          copied: false,
        }))
        const choice = choose(readings)
        const where = `n=${n} holders=${[...holders].join('')} seen=${[...seen].join('')}`
        if (choice === undefined) throw new Error(where)
        if ((choice.health === 'good') !== seen.size > n / 2) t.fail(`health: ${where}`)
        const acknowledged = commitHolds({ list, previous: null }, holders)
        if (acknowledged && choice.health === 'good' && !sameVersion(choice.version, newer)) t.fail(`lost: ${where}`)
        if (seen.size === n && !acknowledged && holders.size > 0) {
          if (!sameVersion(choice.version, old)) t.fail(`what was told to have failed is back: ${where}`)
          if (choice.discarded.length !== 1) t.fail(`discarded: ${where}`)
        }
      }
    }
  }
  t.pass('all')
})

t.test('a change of the list: held in old and new, whoever is readable', async (t) => {
  const all = ids(5)
  for (const before of subsets(all)) {
    for (const after of subsets(all)) {
      if (before.size === 0 || after.size === 0) continue
      const joint: Lists = { list: [...after], previous: [...before] }
      const union = [...new Set([...before, ...after])]
      for (const holders of subsets(union)) {
        if (!commitHolds(joint, holders)) continue
        // Every start that the old list alone would allow sees one holder, and so would every start of the new list.
        for (const members of [[...before], [...after]]) {
          for (const seen of subsets(members)) {
            if (!startHolds({ list: members, previous: null }, seen)) continue
            if (![...seen].some((id) => holders.has(id)))
              t.fail(`old=${[...before].join('')} new=${[...after].join('')} holders=${[...holders].join('')}`)
          }
        }
      }
    }
  }
  t.pass('all')
})

t.test('a copy proves nothing by what it lacks', async (t) => {
  const list = ids(3)
  const reading = (id: string, version: Version, copied: boolean): Reading => ({
    id,
    version,
    list,
    previous: null,
    copied,
  })
  // b acknowledged `newer` and was then restored from a backup; c had missed it.
  const all = [reading('a', newer, false), reading('b', old, true), reading('c', old, false)]
  t.same(choose(all)?.version, newer)
  t.equal(choose(all)?.health, 'good')
  t.equal(choose(all.slice(1))?.health, 'stale', 'a restored and an old one are no majority')
  t.equal(choose(list.map((id) => reading(id, old, true)))?.health, 'good', 'a set restored as a whole starts')
})

t.test('deleting: bad ones may not outnumber good ones among the rest', async (t) => {
  const set = (s: string) => s.split('').map((c) => ({ good: c === 'g' || c === 'G', deleted: c === 'G' || c === 'B' }))
  t.equal(deleteMakesStale(set('gGb')), false, 'one each is not more')
  t.equal(deleteMakesStale(set('gGbb')), true)
  t.equal(deleteMakesStale(set('gBbb')), false, 'deleting a bad one only helps')
  t.equal(deleteMakesStale(set('GGG')), false, 'that is the other rule')
})

/**
 * The whole protocol in miniature: replicas are values, a daemon is a term, every write reaches an arbitrary set of
 * them. What was acknowledged must be in every later start, and what was told to have failed after every replica could
 * be asked must not come back.
 */
interface Disk {
  promise: number
  version: Version
  list: readonly string[]
  previous: readonly string[] | null
  log: readonly number[]
}
interface Step {
  readonly kind: 'commit' | 'restart' | 'list'
  readonly reach: readonly boolean[]
  readonly again: readonly boolean[]
}

const runProtocol = (first: number, steps: readonly Step[]): void => {
  const names = ids(5)
  const disks = new Map<string, Disk>()
  const initial = names.slice(0, first)
  for (const id of initial)
    disks.set(id, { promise: 1, version: { term: 1, epoch: 1 }, list: initial, previous: null, log: [] })
  const daemon: { running: { term: number; state: Disk } | null } = { running: null }
  let acknowledged: readonly number[] = []
  let serial = 0
  const pick = (mask: readonly boolean[]): Set<string> => new Set(names.filter((_, i) => mask[i]))

  const store = (term: number, next: Disk, reach: Set<string>): boolean => {
    const members = new Set([...next.list, ...(next.previous ?? [])])
    const holders = new Set([...reach].filter((id) => members.has(id)))
    for (const id of holders) {
      const d = disks.get(id)
      // A new replica is made with the image; an old one takes it unless it promised somebody newer.
      if (d === undefined || d.promise <= term) disks.set(id, { ...next, promise: term })
      else holders.delete(id)
    }
    return commitHolds(next, holders)
  }
  const start = (reach: Set<string>, again: Set<string>): void => {
    daemon.running = null
    const readable = [...disks].filter(([id]) => reach.has(id))
    const choice = choose(
      readable.map(([id, d]) => ({ id, version: d.version, list: d.list, previous: d.previous, copied: false })),
    )
    if (choice?.health !== 'good') return
    const source = readable.map(([, d]) => d).find((d) => sameVersion(d.version, choice.version))
    if (source === undefined) throw new Error('chosen is not there')
    const chosen = choice.reverted ? { ...source, list: source.previous ?? [], previous: null } : source
    const term = Math.max(...readable.flatMap(([, d]) => [d.promise, d.version.term])) + 1
    const promised = new Set(readable.filter(([id]) => again.has(id)).map(([id]) => id))
    for (const id of promised) {
      const d = disks.get(id)
      if (d !== undefined) d.promise = term
    }
    if (!startHolds(chosen, promised)) return
    const epoch = Math.max(...readable.map(([, d]) => d.version.epoch)) + 1
    const next = { ...chosen, version: { term, epoch } }
    if (!store(term, next, promised)) return
    for (const [i, x] of acknowledged.entries())
      if (next.log[i] !== x) throw new Error(`lost ${x} of ${acknowledged.join()}`)
    acknowledged = next.log
    let state: Disk = next
    if (next.previous !== null) {
      const final = { ...next, previous: null, version: { term, epoch: epoch + 1 } }
      if (!store(term, final, promised)) return
      state = final
    }
    daemon.running = { term, state }
  }

  for (const step of steps) {
    const reach = pick(step.reach)
    if (step.kind === 'restart' || daemon.running === null) {
      start(reach, pick(step.again))
      continue
    }
    const { term, state } = daemon.running
    const version = { term, epoch: state.version.epoch + 1 }
    if (step.kind === 'commit') {
      const next = { ...state, version, log: [...state.log, ++serial] }
      if (store(term, next, reach)) {
        daemon.running = { term, state: next }
        acknowledged = next.log
      } else daemon.running = null
    } else {
      const list = names.filter((_, i) => step.again[i])
      if (list.length === 0) continue
      const joint = { ...state, version, list, previous: state.list }
      const final = { ...joint, previous: null, version: { term, epoch: version.epoch + 1 } }
      if (store(term, joint, new Set([...reach])) && store(term, final, reach)) daemon.running = { term, state: final }
      else daemon.running = null
    }
  }
}

t.test('the protocol keeps what it acknowledged', async (t) => {
  const mask = fc.array(fc.boolean(), { minLength: 5, maxLength: 5 })
  const step: fc.Arbitrary<Step> = fc.record({
    kind: fc.constantFrom('commit', 'commit', 'restart', 'list'),
    reach: fc.oneof(mask, fc.constant([true, true, true, true, true])),
    again: fc.oneof(mask, fc.constant([true, true, true, true, true])),
  })
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 5 }), fc.array(step, { maxLength: 14 }), (n, steps) => {
      runProtocol(n, [...steps, { kind: 'restart', reach: Array(5).fill(true), again: Array(5).fill(true) }])
    }),
    { seed: SEED, numRuns: 20000 },
  )
  t.pass(`seed ${SEED}`)
  t.ok(compareVersions({ term: 2, epoch: 1 }, { term: 1, epoch: 9 }) > 0, 'term before epoch')
})

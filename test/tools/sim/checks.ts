/**
 * What must hold after every step, whatever metad thinks: computed from the durable records, the disks and what
 * clients know, cell by cell, with none of metad's own judgement.
 *
 * - the tree in memory is that of the records, and so are the dirty region logs;
 * - what the records call a source holds what clients know (so a state is durable before anything depends on it);
 * - no write reaches a side before its region is dirty in the records, and where no region is, the sources are the same
 *   on stable storage too;
 * - a copy begins only behind what its target has, and what waited for a decision goes on only with its plan;
 * - every cell has a source; what went into Maintenance had all its cells elsewhere; of Last Erred ones the last stays;
 * - a slice is in one place, a spare stands in for one component at most, and never while it is Broken;
 * - a spare that metareplace relieved is given to nobody before its successor is in step.
 */
import { isDeepStrictEqual } from 'node:util'
import type { Json } from '../../../src/db/types.js'
import { encodeUnit, recordKey } from '../../../src/meta/records.js'
import { ownComponents } from '../../../src/meta/tree.js'
import type { Component, Member, MirrorUnit, StripeUnit, Submirror, Tree, UnitName } from '../../../src/meta/types.js'
import type { ResyncJob } from '../../../src/dataplane/types.js'
import type { Clients } from './client.js'
import { identityOf } from './components.js'
import { componentsOfSide } from './layout.js'
import type { World } from './world.js'

interface Held {
  readonly submirror: Submirror
  readonly component: Component
  readonly index: number
  /** Cell of the component's disk. */
  readonly at: number
}

const CHUNK_REGIONS = 2048
const CHECKED_CELLS = 16

interface Place {
  readonly component: Component
  readonly index: number
  readonly at: number
}

/** By the rules of driver.md 1.4. */
const placeIn = (stripe: StripeUnit, block: number, cellBlocks: number): Place => {
  let at = block
  let index = 0
  for (const row of stripe.rows) {
    const width = row.components.length
    if (at < row.blocks) {
      const chunk = Math.floor(at / row.interlace)
      const column = width === 1 ? 0 : chunk % width
      const inside = width === 1 ? at : Math.floor(chunk / width) * row.interlace + (at % row.interlace)
      const component = row.components[column]
      if (component === undefined) break
      return { component, index: index + column, at: (component.start + inside) / cellBlocks }
    }
    at -= row.blocks
    index += width
  }
  throw new Error(`${stripe.name} has no block ${block}`)
}

const isSource = (h: Held): boolean =>
  (h.submirror.state === 'okay' || h.submirror.state === 'optimized') &&
  (h.component.state === 'okay' || h.component.state === 'lastErred')

export class Checks {
  readonly #world: World
  readonly #clients: ReadonlyMap<UnitName, Clients>
  #tree: Tree | null = null
  #records: ReadonlyMap<string, Json> | null = null
  #next = 0
  /** By spare: where the successor is. */
  readonly #relieved = new Map<string, { readonly unit: UnitName; readonly index: number }>()

  constructor(world: World, clients: ReadonlyMap<UnitName, Clients>) {
    this.#world = world
    this.#clients = clients
  }

  /** A new process: what was before is no longer compared with. */
  restarted(): void {
    this.#tree = this.#records = null
  }

  /** After every step. */
  step(): void {
    const { db, system } = this.#world.process
    if (db.records !== this.#records) {
      this.#records = db.records
      this.#checkRecords(db.records, system.tree)
    }
    if (system.tree !== this.#tree) {
      for (const u of system.tree.values()) if (u.kind === 'mirror') this.#checkMirror(u, system.tree, this.#tree)
      this.#checkSpares(system.tree)
      this.#checkRelieved(system.tree, this.#tree)
      this.#tree = system.tree
    }
    this.#next += CHECKED_CELLS
    for (const [name, clients] of this.#clients) {
      const { size } = clients.oracle
      const cells = Array.from({ length: CHECKED_CELLS }, (_, i) => (this.#next + i) % size)
      this.holds(name, cells)
      this.#clean(name, cells)
    }
  }

  #held(m: MirrorUnit, tree: Tree, cell: number): readonly Held[] {
    const { cellBlocks } = this.#world.setup
    return m.submirrors.map((submirror) => {
      const stripe = tree.get(submirror.unit)
      if (stripe?.kind !== 'stripe') throw new Error(`no stripe ${submirror.unit}`)
      return { submirror, ...placeIn(stripe, cell * cellBlocks, cellBlocks) }
    })
  }

  /** What the records call a source of these cells has what clients know of them. */
  holds(name: UnitName, cells: readonly number[]): void {
    const world = this.#world
    const m = world.mirror(name)
    const clients = this.#clients.get(name)
    const engine = world.engineMirror(name)
    if (m === undefined || clients === undefined) return
    for (const cell of cells) {
      if (cell * world.setup.cellBlocks >= m.blocks) continue
      const value = clients.oracle.certain(cell)
      if (value === undefined) continue
      for (const h of this.#held(m, world.tree, cell)) {
        if (!isSource(h)) continue
        const side = engine?.mirror.sides.find((s) => s.slot === h.submirror.slot)
        const stale = h.submirror.state === 'optimized'
        if (stale && (engine === undefined || side?.stale !== true || engine.isStaleAt(side, cell))) continue
        const disk = world.disk(h.component.path)
        // Another disk in its place is found out by its identity.
        if (identityOf(disk) !== h.component.identity) continue
        if (disk.peek(h.at) !== value)
          world.broken(
            `${name} cell ${cell}: ${h.submirror.unit} (${h.submirror.state}) ${h.component.name} (${h.component.state}) holds ${disk.peek(h.at)}, clients know ${value}`,
          )
      }
    }
  }

  /** What a copy that begins at the checkpoint takes for copied. */
  #isCopied(m: MirrorUnit, h: Held, block: number): boolean {
    const { checkpoint } = m
    if (checkpoint?.slot !== h.submirror.slot || block >= checkpoint.done) return false
    if (checkpoint.component === null) return h.component.state === 'okay'
    return checkpoint.component === h.index && checkpoint.identity === h.component.identity
  }

  /** Where the records have no dirt, sides are the same, whatever a power loss takes. */
  #clean(name: UnitName, cells: readonly number[]): void {
    const world = this.#world
    const m = world.mirror(name)
    const clients = this.#clients.get(name)
    if (m === undefined || clients === undefined || m.submirrors.length < 2) return
    for (const cell of cells) {
      const block = cell * world.setup.cellBlocks
      if (block >= m.blocks || clients.oracle.isUnlike(cell)) continue
      if (this.#isDirty(m, Math.floor(block / m.regionBlocks))) continue
      const sources = this.#held(m, world.tree, cell).filter(
        (h) =>
          (isSource(h) || this.#isCopied(m, h, block)) &&
          identityOf(world.disk(h.component.path)) === h.component.identity,
      )
      const held = new Set(sources.flatMap((h) => world.disk(h.component.path).survivors(h.at)))
      if (sources.length > 1 && held.size > 1)
        world.broken(`${name} cell ${cell} is clean on record, and sides may hold ${[...held].join(' ')}`)
    }
  }

  #isDirty(m: MirrorUnit, region: number): boolean {
    const bits = this.#chunk(this.#world.process.db.records, m.name, Math.floor(region / CHUNK_REGIONS))
    const bit = region % CHUNK_REGIONS
    return bits !== undefined && ((bits[bit >> 3] ?? 0) & (1 << (bit & 7))) !== 0
  }

  #mirrorOf(device: number): MirrorUnit | undefined {
    const name = this.#world.system.parts.metadevices.nameOf(device)
    return name === undefined ? undefined : this.#world.mirror(name)
  }

  /** What lies below the beginning of a copy is on its target, but for what a crash may have interrupted. */
  copying(device: number, job: ResyncJob, loaded: ReadonlySet<number>): void {
    const world = this.#world
    const m = this.#mirrorOf(device)
    const clients = m === undefined ? undefined : this.#clients.get(m.name)
    if (m === undefined || clients === undefined || job.kind === 'optimized') return
    const { cellBlocks } = world.setup
    for (let cell = 0; cell * cellBlocks < job.from; cell++) {
      const value = clients.oracle.certain(cell)
      if (value === undefined || loaded.has(Math.floor((cell * cellBlocks) / m.regionBlocks))) continue
      for (const h of this.#held(m, world.tree, cell)) {
        if (h.submirror.slot !== job.target || h.component.state === 'erred') continue
        if (job.component !== null && !world.process.components.isOf(job.component, h.component)) continue
        const held = world.disk(h.component.path).peek(h.at)
        if (held !== value)
          world.broken(
            `${m.name}: copy to ${h.component.name} from ${job.from}: cell ${cell} holds ${held}, not ${value}`,
          )
      }
    }
  }

  /** What is in Maintenance on record is out of the plan. */
  resuming(device: number): void {
    const world = this.#world
    const m = this.#mirrorOf(device)
    const engine = world.process.engine.mirror(device)
    if (m === undefined || engine === undefined) return
    for (const s of m.submirrors) {
      const side = engine.mirror.sides.find((x) => x.slot === s.slot)
      if (side?.writable !== true) continue
      for (const node of componentsOfSide(engine.plan, side))
        for (const c of world.stripe(s.unit).rows.flatMap((r) => r.components))
          if (node.writable && c.state === 'erred' && world.process.components.isOf(node.component, c))
            world.broken(`${m.name}: requests go on, and ${c.name} is still in the plan`)
    }
  }

  /** What is said is on record. */
  noticed(text: string): void {
    const spare = /open error of hotspare (\S+)/.exec(text)?.[1]
    const erred = /: (\S+) needs maintenance/.exec(text)?.[1]
    for (const u of spare === undefined && erred === undefined ? [] : this.#world.tree.values()) {
      if (u.kind === 'pool' && u.spares.some((s) => s.name === spare && !s.broken))
        this.#world.broken(`${spare ?? ''} is said to be broken, and is not on record`)
      if (u.kind === 'stripe' && u.rows.some((r) => r.components.some((c) => c.name === erred && c.state === 'okay')))
        this.#world.broken(`${erred ?? ''} is said to need maintenance, and is not on record`)
    }
  }

  /** Where a cell lies on one side. */
  placeOf(unit: UnitName, cell: number): { readonly disk: string; readonly cell: number } {
    const { cellBlocks } = this.#world.setup
    const { component, at } = placeIn(this.#world.stripe(unit), cell * cellBlocks, cellBlocks)
    return { disk: component.path, cell: at }
  }

  /** Cells in which sides that are in step beyond doubt do not hold the same. */
  differing(name: UnitName): readonly number[] {
    const world = this.#world
    const m = world.mirror(name)
    if (m === undefined) return []
    const size = Math.floor(m.blocks / world.setup.cellBlocks)
    return Array.from({ length: size }, (_, cell) => cell).filter((cell) => {
      const sources = this.#held(m, world.tree, cell).filter((h) => h.submirror.state === 'okay' && isSource(h))
      // Another disk at the path is not the one that is open.
      if (sources.some((h) => identityOf(world.disk(h.component.path)) !== h.component.identity)) return false
      return new Set(sources.map((h) => world.disk(h.component.path).peek(h.at))).size > 1
    })
  }

  /** No write reaches a side before its regions are on record. */
  writing(device: number, regions: readonly number[], regionBlocks: number): void {
    const world = this.#world
    const m = this.#mirrorOf(device)
    // The other side went by a commit that the engine does not know yet: there is nothing to differ from.
    if (m === undefined || m.submirrors.length < 2) return
    for (const region of regions) {
      const at = Math.floor((region * regionBlocks) / m.regionBlocks)
      if (!this.#isDirty(m, at)) world.broken(`${m.name}: region ${at} is written and not on record`)
    }
  }

  #chunk(records: ReadonlyMap<string, Json>, name: UnitName, chunk: number): Buffer | undefined {
    const record = records.get(`dirty/${name}/${chunk}`) as { readonly bits?: string } | undefined
    return record?.bits === undefined ? undefined : Buffer.from(record.bits, 'base64')
  }

  #checkRecords(records: ReadonlyMap<string, Json>, tree: Tree): void {
    const wanted = new Set<string>()
    for (const u of tree.values()) {
      const key = recordKey(u.name)
      wanted.add(key)
      if (!isDeepStrictEqual(records.get(key), encodeUnit(u)))
        this.#world.broken(`${key} on record is not ${u.name} in memory`)
      if (u.kind === 'mirror' && u.submirrors.length > 1) this.#checkLog(u, records, wanted)
    }
    for (const key of records.keys()) if (!wanted.has(key)) this.#world.broken(`a record of nothing: ${key}`)
  }

  #checkLog(m: MirrorUnit, records: ReadonlyMap<string, Json>, wanted: Set<string>): void {
    const chunks = Math.ceil(Math.ceil(m.blocks / m.regionBlocks) / CHUNK_REGIONS)
    const logged = this.#world.system.state.logs.bitmap(m.name)
    for (let chunk = 0; chunk < chunks; chunk++) {
      const key = `dirty/${m.name}/${chunk}`
      wanted.add(key)
      const record = records.get(key) as { readonly regionBlocks?: number } | undefined
      const bits = this.#chunk(records, m.name, chunk)
      const bytes = CHUNK_REGIONS / 8
      const same = logged !== null && bits?.equals(logged.subarray(chunk * bytes, (chunk + 1) * bytes)) === true
      if (!same || record?.regionBlocks !== m.regionBlocks) this.#world.broken(`${key} is not the log in memory`)
    }
  }

  #checkMirror(m: MirrorUnit, tree: Tree, before: Tree | null): void {
    const size = Math.floor(m.blocks / this.#world.setup.cellBlocks)
    /** Last Erred components that something needs. */
    const needed = new Set<Component>()
    const lasts = new Set<Component>()
    for (let cell = 0; cell < size; cell++) {
      const held = this.#held(m, tree, cell)
      const sources = held.filter(isSource)
      if (sources.length === 0) this.#world.broken(`${m.name} cell ${cell} has no source`)
      for (const h of held) {
        const { component: c } = h
        const later = sources.some(
          (o) => o !== h && (o.component.state === 'okay' || o.component.erredOrder > c.erredOrder),
        )
        if (c.state === 'lastErred') {
          lasts.add(c)
          if (!later) needed.add(c)
        }
        const was = c.state === 'erred' ? this.#sourceBefore(h, before) : null
        const enough = (o: Component): boolean => was?.state === 'okay' || o.erredOrder > (was?.erredOrder ?? 0)
        if (was !== null && !sources.some((o) => o.component.state === 'okay' || enough(o.component)))
          this.#world.broken(`${m.name} cell ${cell}: ${c.name} went into Maintenance, and nothing else has it`)
        if (c.erredOrder > m.errors) this.#world.broken(`${c.name} erred after the last error of ${m.name}`)
      }
    }
    for (const c of lasts) if (!needed.has(c)) this.#world.broken(`${c.name} is Last Erred, and others have all of it`)
    this.#checkCheckpoint(m, tree)
    if (!m.submirrors.some((s) => s.state === 'okay')) this.#world.broken(`${m.name}: no side is in step beyond doubt`)
  }

  /** It is of a copy that is wanted, and what was copied is written since. */
  #checkCheckpoint(m: MirrorUnit, tree: Tree): void {
    const { checkpoint } = m
    if (checkpoint === null) return
    const side = m.submirrors.find((s) => s.slot === checkpoint.slot)
    const stripe = side === undefined ? undefined : tree.get(side.unit)
    const all = stripe?.kind === 'stripe' ? stripe.rows.flatMap((r) => r.components) : []
    const { component } = checkpoint
    if ((component === null ? side?.state : all[component]?.state) !== 'resync')
      this.#world.broken(`${m.name} has a checkpoint of nothing`)
  }

  /** The component as it was, when it was a source. */
  #sourceBefore(h: Held, before: Tree | null): Component | null {
    const stripe = before?.get(h.submirror.unit)
    const mirrors = before === null ? [] : [...before.values()].filter((u) => u.kind === 'mirror')
    const side = mirrors.flatMap((m) => m.submirrors).find((s) => s.unit === h.submirror.unit)
    if (stripe?.kind !== 'stripe' || side === undefined) return null
    const was = stripe.rows.flatMap((r) => r.components)[h.index]
    return was !== undefined && isSource({ ...h, submirror: side, component: was }) ? was : null
  }

  #checkRelieved(tree: Tree, before: Tree | null): void {
    const all = (t: Tree): readonly (readonly [UnitName, number, Member])[] =>
      [...t.values()].flatMap((u) => (u.kind === 'pool' ? [] : ownComponents(u).map((c, i) => [u.name, i, c] as const)))
    const now = all(tree)
    const at = (unit: UnitName, index: number): Member | undefined =>
      now.find(([u, i]) => u === unit && i === index)?.[2]
    for (const [unit, index, c] of before === null ? [] : all(before)) {
      const next = at(unit, index)
      const isWhole = c.state === 'okay' || c.state === 'resync'
      // One that failed while it was copied is Broken, and had nothing more to give.
      const gaveWay = [...tree.values()].some(
        (u) => u.kind === 'pool' && u.spares.some((s) => s.name === c.name && s.broken),
      )
      if (c.spare !== null && isWhole && !gaveWay && next?.spare === null && next.state === 'resync')
        this.#relieved.set(c.name, { unit, index })
    }
    for (const [spare, { unit, index }] of this.#relieved) {
      if (at(unit, index)?.state !== 'resync') this.#relieved.delete(spare)
      else if (now.some(([, , c]) => c.spare !== null && c.name === spare))
        this.#world.broken(`${spare} is used again, and what relieved it in ${unit} is not in step`)
    }
  }

  #checkSpares(tree: Tree): void {
    const users = new Map<string, string>()
    const use = (name: string, who: string): void => {
      const other = users.get(name)
      if (other !== undefined) this.#world.broken(`${name} is used by ${other} and by ${who}`)
      users.set(name, who)
    }
    const spares = new Map<string, string>()
    const pools = new Map<UnitName, readonly { readonly name: string; readonly broken: boolean }[]>()
    for (const u of tree.values()) {
      if (u.kind !== 'pool') continue
      pools.set(u.name, u.spares)
      for (const s of u.spares) {
        const text = JSON.stringify(s)
        if ((spares.get(s.name) ?? text) !== text) this.#world.broken(`${s.name} is not the same in all pools`)
        spares.set(s.name, text)
      }
    }
    for (const u of tree.values()) {
      if (u.kind === 'pool' || u.kind === 'mirror') continue
      for (const c of ownComponents(u)) {
        use(c.name, u.name)
        if (c.relieves !== undefined) use(c.relieves, `${u.name}, relieved by ${c.name}`)
        if (c.spare === null) {
          if (spares.has(c.name)) this.#world.broken(`${c.name} is a spare and a component of ${u.name}`)
          continue
        }
        // It may be what the spare is copied to.
        const back = u.kind === 'raid5' && u.copy?.to.name === c.spare.original.name
        if (!back) use(c.spare.original.name, u.name)
        if (c.state === 'erred') this.#world.broken(`${c.name} failed in ${u.name} and was not given up`)
        const spare = pools.get(c.spare.pool)?.find((s) => s.name === c.name)
        if (spare === undefined) this.#world.broken(`${c.name} stands in ${u.name} and is not in ${c.spare.pool}`)
        if (spare?.broken === true) this.#world.broken(`${c.name} stands in ${u.name} and is Broken`)
        if (c.spare.pool !== u.hotSparePool) this.#world.broken(`${u.name} has a spare of another pool`)
      }
    }
  }
}

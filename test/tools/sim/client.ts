/** Clients of a simulated metadevice: random requests, each checked against the oracle. */
import type { NbdTerms } from '../../../src/dataplane/types.js'
import type { UnitName } from '../../../src/meta/types.js'
import { type FlushMark, Oracle } from './oracle.js'
import type { World } from './world.js'

const TERMS: NbdTerms = {
  structuredReplies: true,
  extendedHeaders: false,
  contexts: [],
  readOnly: false,
  minBlockBytes: 1,
}
const MAX_OUTSTANDING = 6
const MAX_COUNT = 3

interface Reading {
  readonly first: number
  /** By cell: what the read may return, growing with what is written meanwhile. */
  readonly permitted: Set<number>[]
  /** No write of the cell was under way at any time of the read. */
  readonly quiet: boolean[]
}

export interface Watch {
  /** A change may be lost with the process, until it is flushed. */
  readonly volatile: boolean
  /** Something has happened while a client waits to be let in. */
  check(): void
  /** It has so many cells now. */
  grown(cells: number): void
  /** Whether an error would break promise P4 now. */
  strict(): boolean
  /** Differs when a disk was healed in between: an error may come from before that. */
  heals(): number
  /** A write was answered: its cells are where they have to be. */
  answered(cells: readonly number[]): void
}

export class Clients {
  readonly mirror: UnitName
  oracle: Oracle
  readonly #world: World
  readonly #readings = new Set<Reading>()
  /** Values are never used twice, in no mirror. */
  readonly #nextValue: () => number
  readonly #watch: Watch
  #outstanding = 0
  answered = 0
  errors = 0

  constructor(world: World, mirror: UnitName, cells: number, nextValue: () => number, watch: Watch) {
    this.#world = world
    this.mirror = mirror
    this.oracle = new Oracle(cells)
    this.#nextValue = nextValue
    this.#watch = watch
  }

  /** It was made anew, all zeroes. */
  remade(cells: number): void {
    this.oracle = new Oracle(cells)
  }

  get quiet(): boolean {
    return this.#outstanding === 0
  }

  get #device(): number | undefined {
    return this.#world.system.parts.metadevices.deviceOf(this.mirror)
  }

  async arrive(): Promise<void> {
    const { system } = this.#world
    const device = system.parts.metadevices.exportOf(this.mirror)
    if (device === undefined) return
    const admitted = await this.#world.finish(system.admit(device, false), () => this.#watch.check())
    if (!admitted.ok) return
    admitted.value.enter(-1, TERMS, new Uint8Array())
    admitted.value.over()
  }

  leave(): void {
    const { engine } = this.#world.process
    const device = this.#device
    const [one] = device === undefined ? [] : engine.clientsOf(device)
    if (one !== undefined && this.quiet) engine.disconnect(one, 'drain')
  }

  get connected(): boolean {
    const device = this.#device
    return device !== undefined && this.#world.process.engine.clientsOf(device).length > 0
  }

  request(): void {
    const size = this.#world.engineDevice(this.mirror)?.cells ?? 0
    if (!this.connected || this.#outstanding >= MAX_OUTSTANDING || size <= MAX_COUNT) return
    this.#watch.grown(size)
    const { dice } = this.#world.schedule
    const count = 1 + dice.below(MAX_COUNT)
    const first = dice.below(size - count + 1)
    const what = dice.below(10)
    if (what < 5) this.#write(first, count)
    else if (what < 9) this.#read(first, count)
    else this.flush()
  }

  /** metad is gone, and with it everything that was not answered. */
  dropped(power: boolean): void {
    this.#outstanding = 0
    this.#readings.clear()
    // What was not flushed may have been in metad's own memory alone.
    if (power || this.#watch.volatile) this.oracle.powerLost()
    else this.oracle.killed()
  }

  #submit(
    kind: 'read' | 'write' | 'flush',
    first: number,
    count: number,
    value: number,
    done: (ok: boolean, values: readonly number[]) => void,
  ) {
    this.#outstanding++
    const heals = this.#watch.heals()
    const sent = this.#world.process.engine.submit(this.#device ?? -1, {
      kind,
      first,
      count,
      value,
      done: (a) => {
        this.#outstanding--
        this.answered++
        if (!a.ok && a.gone !== true) {
          this.errors++
          if (this.#watch.heals() === heals && this.#watch.strict())
            this.#world.broken(`P4: ${this.mirror}: ${kind} of cell ${first} failed although a whole side is there`)
        }
        done(a.ok, a.ok ? a.values : [])
      },
    })
    if (sent) return
    this.#outstanding--
    done(false, [])
  }

  #write(first: number, count: number): void {
    const value = this.#nextValue()
    const cells = Array.from({ length: count }, (_, i) => first + i)
    for (const i of cells) {
      this.oracle.writing(i, value)
      for (const r of this.#readings) {
        r.permitted[i - r.first]?.add(value)
        if (r.quiet[i - r.first] !== undefined) r.quiet[i - r.first] = false
      }
    }
    this.#submit('write', first, count, value, (ok) => {
      for (const i of cells) this.oracle.written(i, value, ok)
      if (ok) this.#watch.answered(cells)
    })
  }

  #read(first: number, count: number): void {
    const cells = Array.from({ length: count }, (_, i) => first + i)
    const reading: Reading = {
      first,
      permitted: cells.map((i) => new Set(this.oracle.possible(i))),
      quiet: cells.map((i) => this.oracle.inFlight(i) === 0),
    }
    this.#readings.add(reading)
    this.#submit('read', first, count, 0, (ok, values) => {
      this.#readings.delete(reading)
      if (!ok) return
      for (const [at, i] of cells.entries()) {
        const value = values[at] ?? -1
        const permitted = reading.permitted[at] ?? new Set()
        if (!this.oracle.permits(permitted, value))
          this.#world.broken(`${this.mirror} cell ${i}: read ${value}, permitted ${[...permitted].join(' ')}`)
        if (reading.quiet[at] === true) this.oracle.pinned(i, value)
      }
    })
  }

  flush(): void {
    const mark: FlushMark = this.oracle.flushing()
    this.#submit('flush', 0, 0, 0, (ok) => {
      if (ok) this.oracle.flushed(mark)
    })
  }
}

/** The simulated engine: the typed boundary of src/dataplane/types.ts over simulated mirrors. */
import type { DataPlane, NbdTerms, Raid5Job, ResyncJob, VerifyJob } from '../../../src/dataplane/types.js'
import type { NativeEvent } from '../../../src/plan/events.js'
import type { ComponentId, ComponentNode, OpenComponent, Plan } from '../../../src/plan/types.js'
import { decodePlan, describePlan } from '../../../src/plan/verify.js'
import type { Answer, Op, SimDevice } from './device.js'
import type { SimDisk } from './disks.js'
import { componentsOfSide, mirrorOf } from './layout.js'
import type { Ledger } from './ledger.js'
import { type MirrorHost, SimMirror } from './mirror.js'
import { SimRaid5 } from './raid5.js'
import { columnsOf } from './raid5layout.js'
import type { Schedule } from './schedule.js'

export interface EngineHost {
  readonly schedule: Schedule
  readonly cellBlocks: number
  readonly ledger: Ledger
  /** The disk behind an open component; its identity is fixed when it is opened. */
  disk(component: ComponentId): SimDisk
  writing(device: number, regions: readonly number[], regionBlocks: number): void
  copying(device: number, job: ResyncJob, loaded: ReadonlySet<number>): void
  refused(job: ResyncJob | Raid5Job): void
  /** A plan of a RAID5 device that serves is in place. */
  mounted(device: number, plan: Plan, anew: boolean): void
  resuming(device: number): void
  told(e: NativeEvent): void
  begun(device: number, job: Raid5Job, targets: readonly ComponentId[]): void
  trace(line: string): void
}

export class SimEngine implements DataPlane {
  readonly #host: EngineHost
  /** Stripes that stand alone: nobody uses them. */
  readonly #alone = new Set<number>()
  readonly #devices = new Map<number, SimDevice>()
  readonly #clients = new Map<number, number>()
  /** By device: requests that are not answered, and who goes when they are. */
  readonly #unanswered = new Map<number, number>()
  readonly #draining = new Set<number>()
  #events: NativeEvent[] = []
  #wake: () => void = () => undefined
  #rung = false
  #nextClient = 1
  #dead = false

  constructor(host: EngineHost) {
    this.#host = host
  }

  /** The process is gone: nothing of it may touch a disk any more. */
  kill(): void {
    this.#dead = true
    this.#devices.clear()
  }

  device(device: number): SimDevice | undefined {
    return this.#devices.get(device)
  }
  mirror(device: number): SimMirror | undefined {
    const found = this.#devices.get(device)
    return found instanceof SimMirror ? found : undefined
  }
  raid5(device: number): SimRaid5 | undefined {
    const found = this.#devices.get(device)
    return found instanceof SimRaid5 ? found : undefined
  }
  /** False when the device is gone. */
  submit(device: number, op: Op): boolean {
    const found = this.#devices.get(device)
    if (found === undefined) return false
    this.#count(device, 1)
    const done = (answer: Answer): void => {
      op.done(answer)
      this.#count(device, -1)
    }
    found.submit({ ...op, done })
    return true
  }

  #count(device: number, by: number): void {
    const left = (this.#unanswered.get(device) ?? 0) + by
    this.#unanswered.set(device, left)
    if (left > 0) return
    for (const c of this.#draining) if (this.#clients.get(c) === device) this.disconnect(c, 'now')
  }
  clientsOf(device: number): readonly number[] {
    return [...this.#clients].filter(([, d]) => d === device).map(([c]) => c)
  }

  start(_options: unknown, wake: () => void): void {
    this.#wake = wake
  }

  #event(e: NativeEvent): void {
    this.#host.trace(`event ${JSON.stringify(e)}`)
    this.#host.told(e)
    this.#events.push(e)
    if (this.#rung) return
    this.#rung = true
    this.#host.schedule.later(() => {
      this.#rung = false
      if (!this.#dead) this.#wake()
    })
  }

  drain(max: number): readonly NativeEvent[] {
    return this.#events.splice(0, max)
  }

  async install(
    device: number,
    bytes: Uint8Array,
    components: readonly OpenComponent[],
    dirty: Uint8Array | null,
  ): Promise<void> {
    const plan = decodePlan(bytes)
    if (!plan.ok) throw new Error(plan.error)
    const open = new Set(components.map((c) => c.component))
    // What is out of service need not be open.
    const kind = plan.value.nodes.at(-1)?.kind
    if (kind !== 'mirror' && kind !== 'raid5') {
      this.#alone.add(device)
      return
    }
    const closed = this.#served(plan.value).find((n) => n.writable && !open.has(n.component))
    if (closed !== undefined) throw new Error(`component ${closed.component} is not open`)
    this.#host.trace(`install ${device}: ${describePlan(plan.value)}`)
    const have = this.#devices.get(device)
    if (have !== undefined) return have.install(plan.value)
    this.#devices.set(
      device,
      kind === 'mirror' ? this.#newMirror(device, plan.value, dirty) : this.#newRaid5(device, plan.value),
    )
  }

  #served(plan: Plan): readonly ComponentNode[] {
    if (plan.nodes.at(-1)?.kind === 'raid5') return columnsOf(plan)
    const { sides } = mirrorOf(plan)
    return sides.filter((s) => s.writable).flatMap((s) => componentsOfSide(plan, s))
  }

  #newRaid5(device: number, plan: Plan): SimRaid5 {
    const { schedule, cellBlocks, ledger } = this.#host
    return new SimRaid5(device, plan, {
      schedule,
      cellBlocks,
      ledger,
      disk: (component) => this.#host.disk(component),
      mounted: (d, p, anew) => this.#host.mounted(d, p, anew),
      refused: (job) => this.#host.refused(job),
      event: (e) => this.#event(e),
    })
  }

  #newMirror(device: number, plan: Plan, dirty: Uint8Array | null): SimMirror {
    const regions = new Set<number>()
    for (const [i, byte] of (dirty ?? new Uint8Array()).entries())
      for (let bit = 0; bit < 8; bit++) if (((byte >> bit) & 1) === 1) regions.add(i * 8 + bit)
    const { schedule, cellBlocks } = this.#host
    const host: MirrorHost = {
      schedule,
      cellBlocks,
      disk: (component) => this.#host.disk(component),
      writing: (d, dirtied, size) => this.#host.writing(d, dirtied, size),
      copying: (job, loaded) => this.#host.copying(device, job, loaded),
      refused: (job) => this.#host.refused(job),
      event: (e) => this.#event(e),
    }
    return new SimMirror(device, plan, regions, host)
  }

  async remove(device: number): Promise<void> {
    for (const c of this.clientsOf(device)) this.disconnect(c, 'now')
    await this.#devices.get(device)?.remove()
    this.#devices.delete(device)
    this.#alone.delete(device)
  }

  adopt(_fd: number, device: number, _terms: NbdTerms, _residual: Uint8Array): number {
    this.#clients.set(this.#nextClient, device)
    return this.#nextClient++
  }

  disconnect(connection: number, how: 'drain' | 'now'): void {
    const device = this.#clients.get(connection)
    if (device === undefined) return
    if (how === 'drain' && (this.#unanswered.get(device) ?? 0) > 0) {
      this.#draining.add(connection)
      return
    }
    this.#clients.delete(connection)
    this.#draining.delete(connection)
    this.#event({ kind: 'connectionClosed', connection, device, reason: 'simulated' })
  }

  settle(device: number, hold: number, verdict: 'resume' | 'fail'): void {
    this.#host.trace(`settle ${device} ${hold} ${verdict}`)
    if (verdict === 'resume') this.#host.resuming(device)
    this.#devices.get(device)?.settle(hold, verdict)
  }
  marked(device: number, ticket: number, ok: boolean): void {
    this.#devices.get(device)?.marked(ticket, ok)
  }
  resync(device: number, job: ResyncJob): void {
    const mirror = this.mirror(device)
    if (mirror !== undefined) this.#host.schedule.later(() => mirror.resync(job))
  }
  verify(device: number, job: VerifyJob): void {
    const mirror = this.mirror(device)
    if (mirror !== undefined) this.#host.schedule.later(() => mirror.verify(job))
  }
  raid5Job(device: number, job: Raid5Job): void {
    const raid5 = this.raid5(device)
    if (raid5 === undefined) return
    this.#host.begun(device, job, raid5.work.targets(job))
    raid5.job(job)
  }
  cancelResync(device: number): void {
    this.#devices.get(device)?.cancel()
  }
  busy(component: ComponentId): boolean {
    return this.#host.disk(component).busy
  }
  counters(): BigUint64Array {
    return new BigUint64Array(22)
  }
  flush(device: number): Promise<void> {
    if (this.#alone.has(device)) return Promise.resolve()
    return new Promise((resolve, reject) => {
      const done = (a: { readonly ok: boolean }): void => (a.ok ? resolve() : reject(new Error('EIO')))
      if (!this.submit(device, { kind: 'flush', first: 0, count: 0, value: 0, done })) reject(new Error('ENODEV'))
    })
  }
  stop(): Promise<void> {
    return Promise.resolve()
  }
}

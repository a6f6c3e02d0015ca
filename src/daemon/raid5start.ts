/**
 * The start of a RAID5 metadevice: its journal is replayed, then the next epoch is committed, and only then does a
 * plan serve that writes in it (docs/raid5.md, "Replay"; docs/commit-order.md).
 *
 * Invariants:
 * - a replay is made exactly when the engine has forgotten the device, or never knew it: while it knows it, what it
 *   has in memory is newer than the journal, and another epoch would hide groups that are still needed;
 * - every replay that succeeded is followed by one commit of the next epoch, before anything is written in it: the one
 *   after all that the journal has, also when the record has gone back to an older one;
 * - a replay that failed is made again when the record has changed, or somebody asks: else its error would be
 *   decided, shown and replayed for ever;
 * - where it failed and nothing can be taken out of service for that, the engine may show what the journal would
 *   bring, its *picture*, in the recorded epoch: nothing is written then, and the next start begins with a replay.
 */
import { err, ok } from '../base/result.js'
import { raid5Event } from '../meta/raid5state.js'
import { isRaw, servingColumns } from '../meta/raid5tables.js'
import type { Raid5Unit, Tree, UnitName } from '../meta/types.js'
import { metaError, type MetaResult } from '../msg/errors.js'
import { notice as noticeOf } from '../msg/notices.js'
import type { NativeEvent } from '../plan/events.js'
import { strerrorOf } from '../sys/errno.js'
import type { Logger, Notice } from './log.js'
import type { Metadevices } from './metadevices.js'
import type { State } from './state.js'

type Replayed = Extract<NativeEvent, { kind: 'replayed' }>

export interface StartParts {
  readonly state: Pick<State, 'change'>
  readonly metadevices: Pick<Metadevices, 'reserve' | 'deviceOf'>
  readonly log: Pick<Logger, 'info'>
  readonly notice: Notice
}

export class Raid5Starts {
  readonly #parts: StartParts
  /** The device whose plan serves. */
  readonly #started = new Map<UnitName, number>()
  /** The device that was replayed, and the epoch that it is to write in: no plan of it serves yet. */
  readonly #replayed = new Map<UnitName, { readonly device: number; readonly epoch: number }>()
  /** The record with which a replay failed. */
  readonly #failed = new Map<UnitName, Raid5Unit>()
  /** The record of which the engine has the picture, and the record of which it could not be had. */
  readonly #pictured = new Map<UnitName, { readonly device: number; readonly unit: Raid5Unit }>()
  readonly #unseen = new Map<UnitName, Raid5Unit>()
  readonly #waiting = new Map<number, (r: Replayed) => void>()

  constructor(parts: StartParts) {
    this.#parts = parts
  }

  event(e: Replayed): void {
    this.#waiting.get(e.device)?.(e)
    this.#waiting.delete(e.device)
  }

  /** Before anything else of `unit` is served. One without data was never written to. */
  isNeeded(unit: Raid5Unit): boolean {
    return !isRaw(unit) && !this.isStarted(unit.name) && !this.#isReplayed(unit) && !this.isPictured(unit)
  }

  /** The engine has the picture of this very record. */
  isPictured(unit: Raid5Unit): boolean {
    const at = this.#pictured.get(unit.name)
    return at?.unit === unit && at.device === this.#parts.metadevices.deviceOf(unit.name)
  }

  /** Its replay failed, and without what failed something could not be read. */
  wantsPicture(unit: Raid5Unit): boolean {
    const degraded = servingColumns(unit).some((c) => c.state !== 'okay')
    return degraded && this.hasFailed(unit) && this.#unseen.get(unit.name) !== unit
  }

  #isReplayed({ name, journal }: Raid5Unit): boolean {
    const replayed = this.#replayed.get(name)
    return replayed?.device === this.#parts.metadevices.deviceOf(name) && replayed?.epoch === journal.epoch
  }

  /** The engine serves it, in an epoch of its own. */
  isStarted(name: UnitName): boolean {
    const device = this.#started.get(name)
    return device !== undefined && device === this.#parts.metadevices.deviceOf(name)
  }

  /** It failed with this very record. */
  hasFailed(unit: Raid5Unit): boolean {
    return this.#failed.get(unit.name) === unit
  }

  /** A plan that serves was installed. */
  serves(name: UnitName): void {
    const device = this.#parts.metadevices.deviceOf(name)
    if (device !== undefined) this.#started.set(name, device)
    this.#replayed.delete(name)
    this.retry(name)
  }

  /** A replay that failed may be made again: somebody asks for it. */
  retry(name: UnitName): void {
    this.#failed.delete(name)
    this.#pictured.delete(name)
    this.#unseen.delete(name)
  }

  /** The engine does not have it any more. */
  forget(name: UnitName): void {
    this.retry(name)
    this.#replayed.delete(name)
    this.#started.delete(name)
  }

  /**
   * @param install puts the plan of the replay in place. On success the record has a new epoch.
   * @param picture that plan may not write: on success the engine has the picture, and the record is as it was
   */
  async start(
    unit: Raid5Unit,
    install: () => Promise<MetaResult<unknown>>,
    picture = false,
  ): Promise<MetaResult<void>> {
    const { name } = unit
    this.#pictured.delete(name)
    // Known by its number from here on: what fails during the replay is reported by it.
    const device = await this.#parts.metadevices.reserve(name)
    const over = new Promise<Replayed>((resolve) => this.#waiting.set(device, resolve))
    const installed = await install()
    if (!installed.ok) {
      this.#waiting.delete(device)
      return installed
    }
    const { errno, groups, blocks, damaged, epoch } = await over
    if (errno !== 0) {
      ;(picture ? this.#unseen : this.#failed).set(name, unit)
      return err(metaError('sys', name, strerrorOf(errno)))
    }
    if (groups > 0 && !picture) this.#parts.log.info({ metadevice: name, groups, blocks }, 'journal replayed')
    if (damaged > 0) {
      const { level, text } = noticeOf('journalDamaged', name, String(damaged))
      this.#parts.notice(level, text)
    }
    // What -k has made begins at 1, whatever the columns have been through.
    if (epoch > unit.journal.epoch && unit.journal.epoch > 1) {
      const { level, text } = noticeOf('journalNewer', name)
      this.#parts.notice(level, text)
    }
    if (!picture) return this.#raise(unit, device, epoch, damaged > 0)
    this.#pictured.set(name, { device, unit })
    const { level, text } = noticeOf('journalShown', name)
    this.#parts.notice(level, text)
    return ok(undefined)
  }

  async #raise(
    { name, journal }: Raid5Unit,
    device: number,
    epoch: number,
    damaged: boolean,
  ): Promise<MetaResult<void>> {
    const done = await this.#parts.state.change((tree: Tree) => {
      const now = tree.get(name)
      if (now?.kind !== 'raid5' || now.journal.unit !== journal.unit || now.journal.epoch !== journal.epoch)
        return err(metaError('unitNotSetUp', name))
      return raid5Event(tree, name, { event: 'started', epoch, damaged }, Date.now())
    })
    if (!done.ok) return done
    this.#replayed.set(name, { device, epoch: Math.max(journal.epoch, epoch) + 1 })
    return ok(undefined)
  }
}

/**
 * RAID5 metadevices of which `after` clears something or brings something back: what they have in memory is to be on
 * their columns first. The engine only ends what is in flight of a device that goes, and a column that comes back
 * should find no group under way that it was not part of.
 */
export const toBeDrained = (before: Tree, after: Tree): readonly UnitName[] =>
  [...before.values()].flatMap((unit) => {
    if (unit.kind !== 'raid5') return []
    const next = after.get(unit.name)
    if (next === unit) return []
    if (next?.kind !== 'raid5' || next.serving !== unit.serving) return [unit.name]
    const comesBack = next.columns.some((c, i) => {
      const was = unit.columns[i]
      return c.state === 'resync' && (was?.state !== 'resync' || was.identity !== c.identity)
    })
    return comesBack ? [unit.name] : []
  })

/**
 * What a kind of metadevice must answer. Everything here is pure: the same arguments give the same
 * answer, and nothing is changed. The core (operations, records, status, compile) does what is common.
 */
import type { Result } from '../base/result.js'
import type { MetaError, MetaResult } from '../msg/errors.js'
import type { ResyncReport, UnitReport } from '../msg/report.js'
import type { Blocks } from '../base/units.js'
import type { PlanBuilder } from '../plan/builder.js'
import type { ComponentId, NodeId } from '../plan/types.js'
import type { Headers } from './raid5header.js'
import type { Reader } from './reader.js'
import type {
  Inventory,
  Kind,
  Member,
  Metadevice,
  ReadPolicy,
  Slice,
  Tree,
  Unit,
  UnitName,
  WritePolicy,
} from './types.js'

/** What a definition says, before any device was looked at. */
export interface RowDefinition {
  readonly components: readonly string[]
  /** null: not given. */
  readonly interlace: Blocks | null
}
export interface StripeDefinition {
  readonly kind: 'stripe'
  readonly name: UnitName
  readonly rows: readonly RowDefinition[]
  readonly hotSparePool: UnitName | null
}
export interface MirrorDefinition {
  readonly kind: 'mirror'
  readonly name: UnitName
  readonly submirrors: readonly UnitName[]
  readonly read: ReadPolicy
  readonly write: WritePolicy
  readonly pass: number
}
export interface PoolDefinition {
  readonly kind: 'pool'
  readonly name: UnitName
  readonly spares: readonly string[]
}
export interface Raid5Definition {
  readonly kind: 'raid5'
  readonly name: UnitName
  readonly columns: readonly string[]
  /** null: not given. */
  readonly interlace: Blocks | null
  readonly hotSparePool: UnitName | null
  /** The columns hold the data of a RAID5 device of this very shape, which is kept. */
  readonly keep: boolean
  /** null: all of them. */
  readonly originals: number | null
  /** null: the default. */
  readonly slots: number | null
}
export type Definition = StripeDefinition | MirrorDefinition | Raid5Definition | PoolDefinition

export type UnitOf<K extends Kind> = Extract<Unit, { readonly kind: K }>
export type DefinitionOf<K extends Kind> = Extract<Definition, { readonly kind: K }>

/** `word` is the index, among the words after the name, at which reading stopped; absent at the end. */
export interface ParseError extends MetaError {
  readonly word?: number
}
export type ParseResult<T> = Result<T, ParseError>

/** What runs now and is not in the tree. */
export interface Live {
  /** Clients are connected, or something else holds the metadevice open. */
  isOpen(name: UnitName): boolean
  /** A resync of this mirror is running. */
  isResyncing(name: UnitName): boolean
  /** No component of this metadevice can be opened. */
  isUnavailable(name: UnitName): boolean
  /** The component is in service, and could not be opened. */
  isMissing(c: Member): boolean
}
export const IDLE: Live = {
  isOpen: () => false,
  isResyncing: () => false,
  isUnavailable: () => false,
  isMissing: () => false,
}

export interface BuildContext {
  readonly tree: Tree
  readonly inventory: Inventory
  readonly live: Live
  /** ms since the epoch. */
  readonly now: number
  readonly force: boolean
  /** Of the unit to be made. */
  readonly minor: number
  /** From 1 to 2^53 - 1, another one for every unit: what must never be taken for another unit's is known by it. */
  readonly random: number
  /** What the devices say that are to be columns again. */
  readonly headers: Headers
}
/** Whole lines for stderr: warnings name the command but, unlike errors, not the host (commands.md 0.1). */
export type Warning = readonly string[]
export interface Built<U extends Unit> {
  readonly unit: U
  readonly warnings: readonly Warning[]
}

export interface CompileContext {
  readonly tree: Tree
  readonly to: PlanBuilder
  readonly component: (c: Member) => ComponentId
  readonly child: (unit: Metadevice) => NodeId
  /** A RAID5 device is to replay its journal, before it serves. */
  readonly replay: boolean
}

/** What metastat shows and the tree does not hold. */
export interface LiveStatus {
  /** null: no resync runs or was cancelled. */
  resync(mirror: UnitName): ResyncReport | null
  /** The component is in service, and could not be opened. */
  isMissing(c: Member): boolean
  hasReplica(c: Slice): boolean
  /** Identification of the drive that survives being moved; null when it has none. */
  deviceId(c: Slice): string | null
}
export const CALM: LiveStatus = {
  resync: () => null,
  isMissing: () => false,
  hasReplica: () => false,
  deviceId: () => null,
}

export interface KindModule<K extends Kind> {
  readonly kind: K
  /** As the kernel module is called in messages: `md_stripe`. */
  readonly driver: string
  /** Words after the name, from metainit or md.tab. */
  parse(name: UnitName, words: readonly string[]): ParseResult<DefinitionOf<K>>
  /** md.tab form of a definition: parse(print(d)) equals d. */
  print(definition: DefinitionOf<K>): string
  /** Component words that must be looked up before build. */
  componentWords(definition: DefinitionOf<K>): readonly string[]
  /** Every check, then the unit; no side effects, so -n is free. */
  build(definition: DefinitionOf<K>, context: BuildContext): MetaResult<Built<UnitOf<K>>>
  /** md.tab form as metastat -p prints it; build(parse(toTab(u))) has u's layout. */
  toTab(unit: UnitOf<K>): string
  /** The unit's part of metastat. */
  report(unit: UnitOf<K>, tree: Tree, live: LiveStatus): UnitReport
  /** Reads the fields of a record; problems are noted in the reader. */
  decode(from: Reader, common: { readonly name: UnitName; readonly minor: number }): UnitOf<K>
  /** What must hold between this unit and the rest of a tree that was read; null when it does. */
  verify(unit: UnitOf<K>, tree: Tree): string | null
}

/** A kind that the engine serves. */
export interface DeviceModule<K extends Metadevice['kind']> extends KindModule<K> {
  /** Appends the unit's nodes, children first, and returns its own. */
  compile(unit: UnitOf<K>, context: CompileContext): NodeId
}

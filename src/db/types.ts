/**
 * The state database as the daemon sees it: named JSON records, changed together in one commit.
 * A commit is durable on at least half of the listed replicas or it did not happen (design 6).
 */
import type { MetaResult } from '../msg/errors.js'
import type { ReplicaReport } from '../msg/report.js'

declare const durable: unique symbol
/** Proof that a commit is on stable storage; only db/ makes one. */
export interface Durable {
  readonly [durable]: true
  readonly epoch: number
}

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json }
/** null deletes the record. */
export type RecordChanges = ReadonlyMap<string, Json | null>

/** `none`: no replica was ever made. `stale`: too few replicas; records may be read, nothing may change. */
export type DatabaseHealth = 'none' | 'good' | 'stale'

export interface ReplicaPlace {
  /** Absolute path of a file to be created, a directory, or a block device. */
  readonly path: string
}

export interface StateDatabase {
  readonly health: DatabaseHealth
  readonly epoch: number
  readonly records: ReadonlyMap<string, Json>
  commit(changes: RecordChanges): Promise<MetaResult<Durable>>
  /** Checks everything, then creates the replicas and commits the new list in old and new list. */
  add(
    places: readonly ReplicaPlace[],
    options: { readonly force: boolean; readonly count: number; readonly length: number | null },
  ): Promise<MetaResult<void>>
  delete(places: readonly ReplicaPlace[], options: { readonly force: boolean }): Promise<MetaResult<void>>
  status(): Promise<readonly ReplicaReport[]>
  /** Absolute paths of every listed replica's storage, so that components may not be built on them. */
  places(): readonly string[]
  /** Writes mddb.cf again from the list in memory (metadb -p). */
  writeLocations(): Promise<MetaResult<void>>
  close(): Promise<void>
}

export interface DatabaseEvents {
  /** A replica went bad or came back, or health changed; text is md(7D)'s where it has one. */
  notice(level: 'notice' | 'warning' | 'panic', text: string): void
  healthChanged(health: DatabaseHealth): void
}

/** What of a RAID5 metadevice is to be made in the background (driver.md 4.9): zeroing, a column's resync, parity. */

export type Raid5Target =
  /** Zeroes over the columns, all of a new unit or those that were attached. */
  | { readonly kind: 'initialise'; readonly columns: readonly number[] }
  /** The content of one column from all others. */
  | { readonly kind: 'regenerate'; readonly column: number }
  /** metasync -p: parity that does not fit its line is written anew. */
  | { readonly kind: 'parity' }

export const sameRaid5Target = (a: Raid5Target, b: Raid5Target): boolean => {
  if (a.kind === 'regenerate') return b.kind === 'regenerate' && a.column === b.column
  if (a.kind === 'initialise') return b.kind === 'initialise' && a.columns.join() === b.columns.join()
  return b.kind === 'parity'
}

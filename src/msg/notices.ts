/**
 * What metad says on its own account: md(7D)'s sentences for the log (commands.md 7.2). Holes are
 * filled in order. Errors that answer a command are in catalogue.ts.
 */
export const NOTICES = {
  /** args: submirror or RAID5 device, component. Maintenance or Last Erred. */
  needsMaintenance: ['warning', 'md: %s: %s needs maintenance'],
  /** args: submirror, component. Said after needsMaintenance. */
  lastErred: ['warning', 'md: %s: %s last erred'],
  /** args: metadevice, component. */
  readError: ['warning', 'md: %s: read error on %s'],
  writeError: ['warning', 'md: %s: write error on %s'],
  /** The driver of RAID5 leaves out the colon. args: metadevice, column. */
  raid5ReadError: ['warning', 'md %s: read error on %s'],
  raid5WriteError: ['warning', 'md %s: write error on %s'],
  raid5OpenError: ['warning', 'md: %s failed to open. open error on %s'],
  /** Ours, md(7D) has nothing to rewrite. args: submirror, component, blocks, the first of them on the component. */
  readRepaired: ['notice', 'md: %s: read error on %s repaired: %s blocks rewritten at block %s'],
  /** args: mirror, component. */
  openError: ['warning', 'md %s: open error on %s'],
  /** args: submirror, component, spare. */
  hotSpared: ['notice', 'md: %s: hotspared device %s with %s'],
  /** args: submirror, spare. */
  hotSpareOpenError: ['warning', 'md: %s: open error of hotspare %s'],
  /** Ours: clients still have what they were lent of it, or the kernel what was given up. args: submirror, spare. */
  hotSpareHeld: ['notice', 'md: %s: hotspare %s is still busy, and passed over until it is not'],
  /** Of RAID5: it goes back to its pool as Broken. args: metadevice, spare. */
  spareReleased: ['warning', 'md: %s: %s hotspare errored and released'],
  /** A column was being copied there, and stays what it is. args: RAID5 metadevice, target. */
  replaceWriteError: ['warning', 'md: %s: %s write error, replace terminated'],
  /**
   * A column cannot be made, because another one cannot be read; or, after lastErred, it fails while it is copied and nothing
   * else has its data. args: RAID5 metadevice.
   */
  replaceTerminated: ['warning', 'md: %s: needs maintenance, replace terminated'],
  /** args: mirror. */
  resyncCancelled: ['warning', 'md: %s: Resync cancelled'],
  /** Ours. args: RAID5 metadevice, how many. metasync --verify tells whether parity is wrong. */
  journalDamaged: ['warning', 'md: %s: %s parts of the journal were damaged, parity may be wrong'],
  /** Ours. args: RAID5 metadevice. What metad knows of the states of its columns may be out of date, too. */
  journalNewer: [
    'warning',
    'md: %s: its journal is newer than the state database; check parity with metasync --verify',
  ],
  /** Ours. args: RAID5 metadevice. */
  journalShown: ['warning', 'md: %s: its journal cannot be replayed; read only, as it would be after that'],
  stale: ['warning', 'md: state database is stale'],
  commitFailed: ['warning', 'md: state database commit failed'],
} as const satisfies Record<string, readonly ['notice' | 'warning', string]>

export type NoticeCode = keyof typeof NOTICES

export interface NoticeText {
  readonly level: 'notice' | 'warning'
  readonly text: string
}

export const notice = (code: NoticeCode, ...args: readonly string[]): NoticeText => {
  const [level, text] = NOTICES[code]
  let i = 0
  return { level, text: text.replace(/%s/g, () => args[i++] ?? '') }
}

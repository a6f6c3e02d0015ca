/**
 * The headers of RAID5 columns on storage. They are read for -k, of devices that nobody has open yet. A column gets
 * one when it is in step, before the commit that says so, because for -k a header means that the data behind it
 * is part of the device.
 *
 * What is on disk: the header is one block, so it is the old one or the new one. Where the device writes more
 * than a block at once its neighbours, which are the journal's, are read and written back with it: the engine may
 * not write to such a column meanwhile.
 */
import { type FileHandle, open } from 'node:fs/promises'
import { err, ok } from '../base/result.js'
import { BLOCK_BYTES } from '../base/units.js'
import { startBlock } from '../meta/layout.js'
import {
  decodeHeader,
  encodeHeader,
  type FoundHeader,
  headerOf,
  type Headers,
  isLive,
  NO_HEADERS,
  slotBlocks,
} from '../meta/raid5header.js'
import type { Device, Raid5Unit } from '../meta/types.js'
import { type MetaResult, metaError } from '../msg/errors.js'
import { strerror } from '../msg/strerror.js'
import type { OpenComponent } from '../plan/types.js'
import { errnoOf, sysError } from '../sys/errno.js'
import type { HostFiles } from '../sys/hostfiles.js'
import { within } from '../sys/limit.js'
import { limited, type Opener } from './limited.js'

const readBlock = async (file: FileHandle, block: number): Promise<Uint8Array> => {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(BLOCK_BYTES), 0, BLOCK_BYTES, block * BLOCK_BYTES)
  if (bytesRead !== BLOCK_BYTES) throw Object.assign(new Error('short read'), { code: 'EIO' })
  return buffer
}

/** What the device says where the prewrite area of a column would begin. */
const lookAt = async (d: Device): Promise<MetaResult<FoundHeader | null>> => {
  const { start } = startBlock(d, false)
  if (start >= d.size) return ok(null)
  try {
    const file = await open(d.path, 'r')
    try {
      const found = decodeHeader(await readBlock(file, d.offset + start))
      if (found === null) return ok(null)
      const { header, ours, little } = found
      if (ours) return ok({ header, live: false })
      for (const slot of slotBlocks(header)) {
        if (start + slot >= d.size) return ok(null)
        if (isLive(await readBlock(file, d.offset + start + slot), little)) return ok({ header, live: true })
      }
      return ok({ header, live: false })
    } finally {
      await file.close()
    }
  } catch (e) {
    if (errnoOf(e) === undefined) throw e
    return err(sysError(e, d.name))
  }
}

/** @param limitMillis for each device; 0: wait. */
export const gatherHeaders = async (devices: readonly Device[], limitMillis: number): Promise<Headers> => {
  const look = async (d: Device): Promise<readonly [string, MetaResult<FoundHeader | null>]> => [
    d.name,
    await within(limitMillis, d.name, () => lookAt(d)),
  ]
  const seen = new Map(await Promise.all(devices.map(look)))
  return (d) => seen.get(d.name) ?? NO_HEADERS(d)
}

/** Durably writes the header of a column as `u` says it, unless it is there already. */
const putHeader = async (
  u: Raid5Unit,
  index: number,
  to: OpenComponent,
  files: HostFiles,
  inPlace: boolean,
): Promise<MetaResult<void>> => {
  const c = u.columns[index]
  const header = headerOf(u, index, inPlace)
  if (c === undefined || header === null) return err(metaError('sys', u.name, strerror('EINVAL')))
  const block = encodeHeader(header)
  const at = (c.offset + c.start) * BLOCK_BYTES
  const first = at - (at % to.align)
  try {
    const around = await files.read(to.fd, to.align, first)
    const place = around.subarray(at - first, at - first + BLOCK_BYTES)
    if (place.equals(block)) return ok(undefined)
    place.set(block)
    await files.write(to.fd, around, first)
    await files.sync(to.fd)
    return ok(undefined)
  } catch (e) {
    if (errnoOf(e) === undefined) throw e
    return err(sysError(e, c.name))
  }
}

const syncColumn = async ({ fd }: OpenComponent, name: string, files: HostFiles): Promise<MetaResult<void>> => {
  try {
    await files.sync(fd)
    return ok(undefined)
  } catch (e) {
    if (errnoOf(e) === undefined) throw e
    return err(sysError(e, name))
  }
}

/** Columns that a header may say to be part of the device. */
export const inStep = (u: Raid5Unit): readonly number[] => u.columns.flatMap((c, i) => (c.state === 'okay' ? [i] : []))

export interface HeaderOptions {
  /** For each column; 0: never. */
  readonly limitSeconds: number
  /**
   * The engine may write to the columns. One whose device writes more than a block at once is left as it is then,
   * because the journal is beside the header; the next start gives it its header.
   */
  readonly inService: boolean
  /** The device is cleared, and everything is in its place: -k has nothing to replay. */
  readonly inPlace?: boolean
  readonly files: HostFiles
}

/**
 * The headers of `columns` of `u` are on stable storage, or the error says of which one they are not. Those that are
 * there already are not written. With `inPlace` none is before all of `columns` are synced: a header that ends the
 * journal ends it for all of them.
 */
export const writeHeaders = async (
  u: Raid5Unit,
  columns: readonly number[],
  opener: Opener,
  { limitSeconds, inService, inPlace = false, files }: HeaderOptions,
): Promise<MetaResult<void>> => {
  const each = async (work: (open: OpenComponent, index: number) => Promise<MetaResult<void>>) => {
    const done = await Promise.all(
      columns.map(async (index) => {
        const c = u.columns[index]
        if (c === undefined) return err(metaError('sys', u.name, strerror('EINVAL')))
        return limited(opener, c, limitSeconds, (open) => work(open, index))
      }),
    )
    return done.find((d) => !d.ok) ?? ok(undefined)
  }
  if (inPlace) {
    const synced = await each((open, index) => syncColumn(open, u.columns[index]?.name ?? u.name, files))
    if (!synced.ok) return synced
  }
  return each((open, index) =>
    inService && open.align > BLOCK_BYTES ? Promise.resolve(ok(undefined)) : putHeader(u, index, open, files, inPlace),
  )
}

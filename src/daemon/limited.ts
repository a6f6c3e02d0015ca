/** Work on the storage of one slice that ends in time, whatever the storage does. */
import type { Slice } from '../meta/types.js'
import { type MetaResult, metaError } from '../msg/errors.js'
import { err } from '../base/result.js'
import { strerror } from '../msg/strerror.js'
import type { OpenComponent } from '../plan/types.js'

/** Opens storage as components are opened: identity and size compared, exclusive, alone. */
export interface Opener {
  acquire(slice: Slice): Promise<MetaResult<OpenComponent>>
  release(slice: Slice): void
}

/**
 * `job` on the opened slice. After `limitSeconds` (0: never) the answer is ETIMEDOUT; the storage stays
 * open until the kernel gives the operation back, because a descriptor in use must not be reused.
 */
export const limited = async (
  opener: Opener,
  slice: Slice,
  limitSeconds: number,
  job: (open: OpenComponent) => Promise<MetaResult<void>>,
): Promise<MetaResult<void>> => {
  const opened = await opener.acquire(slice)
  if (!opened.ok) return opened
  const done = job(opened.value).finally(() => opener.release(slice))
  if (limitSeconds === 0) return done
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<MetaResult<void>>((resolve) => {
    timer = setTimeout(() => resolve(err(metaError('sys', slice.name, strerror('ETIMEDOUT')))), limitSeconds * 1000)
  })
  return Promise.race([done, late]).finally(() => clearTimeout(timer))
}

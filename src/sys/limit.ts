/** A limit for looking at storage that may never answer. */
import { err } from '../base/result.js'
import { type MetaResult, metaError } from '../msg/errors.js'
import { strerror } from '../msg/strerror.js'

/** Looks that came to no end yet. Each holds one of Node's few threads for file operations, so one per name is enough. */
const stuck = new Set<string>()

/** @param millis after which the answer is ETIMEDOUT, as it is while an earlier look at `name` hangs; 0: never. */
export const within = async <T>(
  millis: number,
  name: string,
  look: () => Promise<MetaResult<T>>,
): Promise<MetaResult<T>> => {
  if (millis === 0) return look()
  const late = err(metaError('sys', name, strerror('ETIMEDOUT')))
  if (stuck.has(name)) return late
  let timer: NodeJS.Timeout | undefined
  const limit = new Promise<MetaResult<T>>((resolve) => {
    timer = setTimeout(() => {
      stuck.add(name)
      resolve(late)
    }, millis)
  })
  const looking = look().finally(() => stuck.delete(name))
  return Promise.race([looking, limit]).finally(() => clearTimeout(timer))
}

/** The one order in which a job begins: what it works on is served, and as the records have it now. */
import type { UnitName } from '../meta/types.js'
import { errorText } from '../msg/errors.js'
import type { Logger } from './log.js'
import type { Serving } from './serving.js'

/**
 * @param wanted what the records want now
 * @returns that, once the engine has the plan it belongs to; undefined: none is wanted, or the device cannot be served
 */
export const shownJob = async <Job>(
  name: UnitName,
  wanted: () => Job | undefined,
  {
    serving,
    log,
  }: { readonly serving: Pick<Serving, 'open' | 'waits' | 'isPictured' | 'isShown' | 'show'>; readonly log: Logger },
): Promise<Job | undefined> => {
  if (wanted() === undefined || serving.waits(name)) return undefined
  for (;;) {
    const opened = await serving.open(name)
    if (!opened.ok) {
      log.warn({ metadevice: name }, `no resync: ${errorText(opened.error)}`)
      return undefined
    }
    // The replay that ends this asks for jobs again.
    if (serving.isPictured(name)) return undefined
    // A change that is durable and not yet installed: the engine would begin under a plan that goes, and clients did not
    // write to the target yet.
    if (serving.isShown(name) || wanted() === undefined) return wanted()
    await serving.show(name)
  }
}

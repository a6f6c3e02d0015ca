/** One stat request and what came of it; errors are printed unless the caller takes them. */
import type { MetaError } from '../msg/errors.js'
import type { StatReport } from '../msg/report.js'
import type { Call } from './command.js'

export interface Fetched {
  readonly status: number
  readonly report: StatReport | null
}

export const fetchStat = async (
  call: Call,
  ask: { readonly probe: boolean; readonly names: readonly string[] },
  takeError: (e: MetaError) => boolean,
): Promise<Fetched> => {
  const got: { report: StatReport | null } = { report: null }
  const status = await call.request({ op: 'stat', ...ask }, (reply) => {
    if (reply.reply === 'stat') got.report = reply.report
    return reply.reply === 'error' && takeError(reply.error)
  })
  return { status, report: got.report }
}

/** For the boot forms (metainit -r, metasync -r): a host without a state database is nothing to complain about. */
export const fetchAtBoot = async (call: Call): Promise<Fetched & { readonly empty: boolean }> => {
  const seen = { empty: false }
  const fetched = await fetchStat(call, { probe: false, names: [] }, (e) => {
    if (e.code === 'noDatabases') seen.empty = true
    return e.code === 'noDatabases'
  })
  return { ...fetched, empty: seen.empty }
}

/**
 * Metadata contexts: `base:allocation` (holes and zeroes) and `metadisk:state` (which blocks have
 * full redundancy). Ids are fixed, so the engine and a client's trace can be read side by side.
 */
import type { NbdTerms } from '../dataplane/types.js'

export type Context = NbdTerms['contexts'][number]

export const CONTEXTS: readonly Context[] = [
  { id: 1, name: 'base:allocation' },
  { id: 2, name: 'metadisk:state' },
]

const namespaceOf = (name: string): string => name.slice(0, name.indexOf(':') + 1)

const matches = (query: string, context: Context, listing: boolean): boolean => {
  if (query === context.name) return true
  // `metadisk:` is our namespace, so its wildcard is ours to define; `base:` has none.
  if (query === 'metadisk:*') return namespaceOf(context.name) === 'metadisk:'
  return listing && query === namespaceOf(context.name)
}

/** LIST: an empty query list or a bare namespace names every context in it. */
export const listContexts = (queries: readonly string[]): readonly Context[] =>
  queries.length === 0 ? CONTEXTS : CONTEXTS.filter((c) => queries.some((q) => matches(q, c, true)))

/** SET: only leaves select; a bare namespace and unknown names select nothing. */
export const selectContexts = (queries: readonly string[]): readonly Context[] =>
  CONTEXTS.filter((c) => queries.some((q) => matches(q, c, false)))

/** The registry: a kind that is missing here does not compile. */
import type { KindModule } from './kind.js'
import { mirror } from './mirror.js'
import { stripe } from './stripe.js'
import type { Kind } from './types.js'

export const KINDS = { stripe, mirror } satisfies { [K in Kind]: KindModule<K> }

/**
 * The module of a kind, for use with units or definitions of that same kind. TypeScript cannot follow
 * that the two belong together, so this is the one place that says it.
 */
export const kindOf = (kind: Kind): KindModule<Kind> => KINDS[kind] as unknown as KindModule<Kind>
export const isKind = (s: string): s is Kind => Object.hasOwn(KINDS, s)

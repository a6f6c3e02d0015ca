/** The registry: a kind that is missing here does not compile. */
import type { DeviceModule, KindModule } from './kind.js'
import { mirror } from './mirror.js'
import { pool } from './pool.js'
import { raid5 } from './raid5.js'
import { stripe } from './stripe.js'
import type { Kind, Metadevice } from './types.js'

type DeviceKind = Metadevice['kind']

const DEVICES = { stripe, mirror, raid5 } satisfies { [K in DeviceKind]: DeviceModule<K> }
export const KINDS = { ...DEVICES, pool } satisfies { [K in Kind]: KindModule<K> }

/**
 * The module of a kind, for use with units or definitions of that same kind. TypeScript cannot follow
 * that the two belong together, so these are the only places that say it.
 */
export const kindOf = (kind: Kind): KindModule<Kind> => KINDS[kind] as unknown as KindModule<Kind>
export const deviceKindOf = (kind: DeviceKind): DeviceModule<DeviceKind> =>
  DEVICES[kind] as unknown as DeviceModule<DeviceKind>
export const isKind = (s: string): s is Kind => Object.hasOwn(KINDS, s)

/**
 * The transitions of components and sides of a mirror as tables (driver.md 2.3, 2.4), and the state that
 * metastat derives from the two (2.2). A missing entry is an event that the state has no answer to.
 */
import { stripeComponents } from './sources.js'
import type { ComponentState, StripeUnit, Submirror, SubmirrorState } from './types.js'

/** `error`: its data is elsewhere, or it had none. `lastError`: it is the only source of some of it. */
export type ComponentEvent =
  'error' | 'lastError' | 'covered' | 'replace' | 'spare' | 'copied' | 'copyFailed' | 'detach'

/** driver.md 2.3. An error of what is Erred already comes from a request that was under way. */
export const COMPONENT_NEXT: Readonly<
  Record<ComponentState, Partial<Readonly<Record<ComponentEvent, ComponentState>>>>
> = {
  okay: { error: 'erred', lastError: 'lastErred', replace: 'resync', detach: 'okay' },
  erred: { error: 'erred', replace: 'resync', spare: 'resync', copyFailed: 'erred', detach: 'okay' },
  lastErred: { error: 'lastErred', lastError: 'lastErred', covered: 'erred', replace: 'resync', detach: 'okay' },
  resync: { error: 'erred', replace: 'resync', copied: 'okay', copyFailed: 'resync', detach: 'okay' },
}

export type SideEvent =
  | 'offline'
  | 'online'
  | 'sync'
  | 'fullDone'
  | 'fullFailed'
  | 'optimizedDone'
  | 'optimizedFailed'
  | 'load'
  /** The start found dirty regions, and another side was chosen as the one that is right. */
  | 'crash'
  /** The start found that nothing is known of dirty regions any more. */
  | 'logLost'

/** driver.md 2.4. */
export const SIDE_NEXT: Readonly<Record<SubmirrorState, Partial<Readonly<Record<SideEvent, SubmirrorState>>>>> = {
  okay: { offline: 'offline', sync: 'okay', load: 'okay', crash: 'optimized', logLost: 'okay' },
  attached: { offline: 'offline', sync: 'resync', load: 'attached', logLost: 'attached' },
  resync: {
    offline: 'offline',
    sync: 'resync',
    fullDone: 'okay',
    fullFailed: 'attached',
    load: 'resync',
    logLost: 'resync',
  },
  offline: { online: 'offlineResync', sync: 'offline', load: 'offlineResync', logLost: 'attached' },
  offlineResync: {
    sync: 'offlineResync',
    optimizedDone: 'okay',
    optimizedFailed: 'offline',
    load: 'offlineResync',
    logLost: 'resync',
  },
  optimized: {
    sync: 'optimized',
    optimizedDone: 'okay',
    optimizedFailed: 'optimized',
    load: 'optimized',
    logLost: 'optimized',
  },
}

/** What metastat makes of a side and its components (driver.md 2.2); nothing of this is stored. */
export interface Derived {
  readonly state: SubmirrorState
  /** Some component is in Maintenance or Last Erred. */
  readonly erred: boolean
  readonly resyncing: boolean
  /** Every component is in Maintenance. */
  readonly allErred: boolean
}
export const derive = (s: Submirror, stripe: StripeUnit): Derived => {
  const components = stripeComponents(stripe)
  return {
    state: s.state,
    erred: components.some((c) => c.state === 'erred' || c.state === 'lastErred'),
    resyncing: components.some((c) => c.state === 'resync'),
    allErred: components.every((c) => c.state === 'erred'),
  }
}
/** SVM's RUNNING. */
export const isRunning = (d: Derived): boolean => d.state === 'okay' && !d.erred && !d.resyncing

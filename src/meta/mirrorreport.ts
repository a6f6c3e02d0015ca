/** What metastat says of a mirror's sides and their components (driver.md 2.2, commands.md 4.4). */
import type { MirrorReport, SubmirrorReport } from '../msg/report.js'
import type { LiveStatus } from './kind.js'
import { type Derived, derive, isRunning } from './mirrortables.js'
import { isStale, type Side, sidesIn, stripeComponents } from './sources.js'
import { configured } from './standing.js'
import { parentOf } from './tree.js'
import type { Component, MirrorUnit, StripeUnit, Submirror, Tree } from './types.js'

/** Nothing of it could be opened, and nothing of it is known to have failed. */
export const isUnavailable = (stripe: StripeUnit, live: LiveStatus): boolean =>
  stripeComponents(stripe).every((c) => c.state !== 'erred' && c.state !== 'lastErred' && live.isMissing(c))

/** Of a component of a submirror; `s` is null outside a mirror, where components have no states. */
export const componentText = (c: Component, s: Submirror | null, live: LiveStatus): string => {
  if (s === null) return live.isMissing(c) ? 'Unavailable' : 'Okay'
  switch (c.state) {
    case 'erred':
      return 'Maintenance'
    case 'lastErred':
      return 'Last Erred'
    case 'resync':
      return live.isMissing(c) ? 'Unavailable' : 'Resyncing'
    case 'okay':
      // Also while its whole side is copied: that is the side's state.
      return live.isMissing(c) ? 'Unavailable' : 'Okay'
  }
}

const needsResync = (d: Derived): boolean =>
  d.resyncing || d.state === 'resync' || d.state === 'offlineResync' || d.state === 'optimized'

/** The component that failed first, of those in Maintenance; then of those Last Erred. */
const toReplace = (m: MirrorUnit, stripe: StripeUnit): string | null => {
  const first = (state: Component['state']): Component | undefined =>
    stripeComponents(stripe)
      .filter((c) => c.state === state)
      .sort((a, b) => a.erredOrder - b.erredOrder)[0]
  const command = (c: Component): string => `metareplace ${m.name} ${configured(c).name} <new device>`
  const erred = first('erred')
  if (erred !== undefined) return command(erred)
  const last = first('lastErred')
  return last === undefined ? null : `after replacing "Maintenance" components:\n\t\t${command(last)}`
}

const reportSide = (m: MirrorUnit, { submirror: s, stripe }: Side, live: LiveStatus): SubmirrorReport => {
  const running = live.resync(m.name)?.state === 'running'
  const d = derive(s, stripe)
  const isOkay = isRunning(d) && !isStale(s)
  const state = (): string => {
    if (isOkay) return isUnavailable(stripe, live) ? 'Unavailable' : 'Okay'
    if (needsResync(d) && running) return 'Resyncing'
    return m.cancelled ? 'Resync cancelled' : 'Needs maintenance'
  }
  const invoke = (): string | null => {
    if (running || isOkay) return null
    if (m.cancelled) return `metasync ${m.name}`
    const replace = toReplace(m, stripe)
    if (replace !== null) return replace
    return s.state === 'offline' ? `metaonline ${m.name} ${s.unit}` : `metasync ${m.name}`
  }
  return {
    slot: s.slot,
    name: s.unit,
    state: state(),
    changed: s.changed,
    invoke: invoke(),
    offline: s.state === 'offline',
  }
}

export const reportMirror = (m: MirrorUnit, tree: Tree, live: LiveStatus, tab: string): MirrorReport => ({
  kind: 'mirror',
  name: m.name,
  parent: parentOf(tree, m.name)?.name ?? null,
  size: m.blocks,
  submirrors: sidesIn(m, tree).map((side) => reportSide(m, side, live)),
  resync: live.resync(m.name),
  pass: m.pass,
  read: m.read,
  write: m.write,
  tab,
})

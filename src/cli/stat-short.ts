/** metastat's short forms: `-p` (md.tab lines, commands.md 4.8) and `-c` (one line per device, 4.9). */
import { unreachable } from '../base/result.js'
import type {
  ComponentReport,
  MirrorReport,
  SpareReport,
  StatReport,
  SubmirrorReport,
  UnitReport,
} from '../msg/report.js'
import { compactSize, percentDone } from '../msg/format.js'
import { type Find, finder } from './stat-long.js'

const named = (r: StatReport, find: Find): UnitReport[] => r.show.flatMap((name) => find(name) ?? [])

/** A mirror's submirrors follow it, so that what is printed can be fed to metainit again. */
export const tabReport = (r: StatReport): string => {
  const find = finder(r)
  const withChildren = (u: UnitReport): UnitReport[] =>
    u.kind === 'mirror' ? [u, ...u.submirrors.flatMap((s) => find(s.name) ?? [])] : [u]
  return named(r, find)
    .flatMap(withChildren)
    .map((u) => (u.tab.endsWith('\n') ? u.tab : `${u.tab}\n`))
    .join('')
}

const NAME_COLUMNS = 16
const STEP = 4

const COMPONENT_WORDS: Readonly<Record<string, string>> = {
  Maintenance: 'maint',
  'Last Erred': 'last-erred',
  Resyncing: 'resyncing',
  Unavailable: 'unavail',
  Initializing: 'initializing',
  invalid: 'invalid',
}

const component = (c: ComponentReport): string => {
  const word = COMPONENT_WORDS[c.state]
  if (c.hotSpare !== null) return `${c.device} (${word ?? 'spared'}-${c.hotSpare})`
  return word === undefined ? c.device : `${c.device} (${word})`
}

const SPARE_WORDS: Readonly<Record<string, string>> = { 'In use': 'in-use', Broken: 'broken' }
const spare = (s: SpareReport): string => {
  const word = SPARE_WORDS[s.state]
  return word === undefined ? s.device : `${s.device} (${word})`
}

const submirrorWord = (m: MirrorReport, s: SubmirrorReport, unavailable: boolean): string | null => {
  if (s.offline) return 'offline'
  if (unavailable || s.state === 'Unavailable') return 'unavail'
  switch (s.state) {
    case 'Okay':
      return null
    case 'Resyncing':
      return `resync-${percentDone(m.resync?.doneBlocks ?? 0, m.resync?.totalBlocks ?? 0, m.size).trim()}%`
    case 'Needs maintenance':
    case 'Resync cancelled':
      return 'maint'
    default:
      return 'unknown'
  }
}

const entry = (u: UnitReport, find: Find, depth: number): string[] => {
  const indent = depth * STEP
  const name = `${' '.repeat(indent)}${u.name.padEnd(NAME_COLUMNS - indent)}`
  const line = (letter: string, parts: readonly string[]): string =>
    `${name} ${letter} ${compactSize(u.size).padStart(6)}${parts.map((p) => ` ${p}`).join('')}`
  switch (u.kind) {
    case 'stripe':
      return [
        line(
          's',
          u.rows.flatMap((r) => r.components.map(component)),
        ),
      ]
    case 'mirror':
      return [line('m', submirrors(u, find)), ...below(u, find, depth)]
    case 'raid5':
      return [line('r', [...u.original.columns, ...(u.attached?.columns ?? [])].map(component))]
    case 'pool':
      return [line('h', u.spares.map(spare))]
    default:
      return unreachable(u)
  }
}

const submirrors = (m: MirrorReport, find: Find): readonly string[] =>
  m.submirrors.map((s) => {
    const child = find(s.name)
    const word = submirrorWord(m, s, child?.kind === 'stripe' && child.unavailable)
    return word === null ? s.name : `${s.name} (${word})`
  })

const below = (m: MirrorReport, find: Find, depth: number): readonly string[] =>
  m.submirrors.flatMap((s) => {
    const child = find(s.name)
    return child === undefined ? [] : entry(child, find, depth + 1)
  })

export const conciseReport = (r: StatReport): string => {
  const find = finder(r)
  return named(r, find)
    .flatMap((u) => entry(u, find, 0))
    .map((l) => `${l}\n`)
    .join('')
}

/**
 * md.tab: one entry per logical line, the words of a metainit command (commands.md 2.1).
 *
 * A bad name anywhere refuses the whole file; anything else wrong with an entry is reported only when
 * the entry is used, so one unsupported line does not spoil the rest. Lines and columns count from 1.
 */
import { err, ok, type Result } from '../base/result.js'
import { type MetaError, metaError } from '../msg/errors.js'
import { getopt } from './getopt.js'
import type { Definition, ParseError } from './kind.js'
import { isKind, KINDS, kindOf } from './kinds.js'
import { parseQualifiedName, type QualifiedName } from './names.js'
import type { Kind, UnitName } from './types.js'

export type TabType = 'mirror' | 'raid5' | 'softpart' | 'trans' | 'replicas' | 'stripe' | 'pool'

export interface TabWord {
  readonly text: string
  readonly line: number
  readonly column: number
}
export interface TabEntry extends QualifiedName {
  readonly type: TabType
  /** Word 0. */
  readonly nameWord: TabWord
  /** After the name. */
  readonly words: readonly TabWord[]
  /** The file, null for words of a command line. */
  readonly file: string | null
}
export interface Tab {
  readonly file: string
  readonly entries: readonly TabEntry[]
}
/** Where in a file; the message itself names the first line of the entry, as SVM's does. */
export interface TabError extends MetaError {
  readonly line?: number
  readonly column?: number
}

/** Words of each logical line with their positions. */
const logicalLines = (text: string): readonly (readonly TabWord[])[] => {
  const lines = text.split('\n')
  const logical: TabWord[][] = []
  let open: TabWord[] | null = null
  for (const [i, raw] of lines.entries()) {
    const line = raw.endsWith('\r') ? raw.slice(0, -1) : raw
    if (open === null && line.startsWith('#')) continue
    // The last piece has no newline after it, so its backslash joins nothing.
    const joins = line.endsWith('\\') && i + 1 < lines.length
    const words: TabWord[] = open ?? []
    for (const m of (joins ? line.slice(0, -1) : line).matchAll(/[^ \t]+/g))
      words.push({ text: m[0], line: i + 1, column: m.index + 1 })
    if (joins) {
      open = words
      continue
    }
    open = null
    if (words.length > 0) logical.push(words)
  }
  if (open !== null && open.length > 0) logical.push(open)
  return logical
}

const REPLICAS = /^mddb\d+$/
/** Whether an entry of that name is always a list of replica places. */
export const namesReplicas = (name: string): boolean => REPLICAS.test(name)

const typeOf = (name: string, word: string | undefined): TabType => {
  switch (word) {
    case '-m':
      return 'mirror'
    case '-r':
      return 'raid5'
    case '-p':
      return 'softpart'
    case '-t':
      return 'trans'
    default:
      if (namesReplicas(name)) return 'replicas'
      return word !== undefined && /^\d+$/.test(word) ? 'stripe' : 'pool'
  }
}

const context = (file: string, line: number): string => `${file} line ${line}`

const entryOf = (words: readonly TabWord[], file: string | null): Result<TabEntry, TabError> => {
  const [nameWord, ...rest] = words
  if (nameWord === undefined) return err(metaError('syntax'))
  const name = parseQualifiedName(nameWord.text)
  if (!name.ok) {
    if (file === null) return name
    return err({
      ...metaError('syntax', `"${nameWord.text}"`),
      context: context(file, nameWord.line),
      line: nameWord.line,
      column: nameWord.column,
    })
  }
  return ok({ ...name.value, type: typeOf(name.value.name, rest[0]?.text), nameWord, words: rest, file })
}

/** @param file as messages name it. */
export const parseTab = (text: string, file: string): Result<Tab, TabError> => {
  const entries: TabEntry[] = []
  for (const words of logicalLines(text)) {
    const entry = entryOf(words, file)
    if (!entry.ok) return entry
    entries.push(entry.value)
  }
  return ok({ file, entries })
}

/** The operands of a command as an entry: the two have one grammar. */
export const commandEntry = (words: readonly string[]): Result<TabEntry, TabError> =>
  entryOf(
    words.map((text) => ({ text, line: 1, column: 1 })),
    null,
  )

/** The first entry of that name in the local set, as Solaris uses it. */
export const findEntry = (tab: Tab, name: UnitName): TabEntry | null =>
  tab.entries.find((e) => e.set === null && e.name === name) ?? null

/** Adds where in the file the entry stands to an error about it. */
export const errorIn = (entry: TabEntry, error: ParseError): TabError => {
  const { word, ...rest } = error
  if (entry.file === null) return rest
  const where = (word === undefined ? entry.words.at(-1) : (entry.words[word] ?? entry.words.at(-1))) ?? entry.nameWord
  return { ...rest, context: context(entry.file, entry.nameWord.line), line: where.line, column: where.column }
}

const UNSUPPORTED: Readonly<Record<Exclude<TabType, Kind>, string>> = {
  softpart: 'soft partition',
  trans: 'trans',
  replicas: 'a replica location as a metadevice',
}

/** What the entry defines; kinds of later releases are an error only here. */
export const definitionOf = (entry: TabEntry): Result<Definition, TabError> => {
  if (entry.set !== null) return err(errorIn(entry, metaError('noSuchSet', `setname "${entry.set}"`)))
  if (!isKind(entry.type))
    return err(errorIn(entry, { ...metaError('unsupported', entry.name, UNSUPPORTED[entry.type]), word: 0 }))
  const words = entry.words.map((w) => w.text)
  const definition = KINDS[entry.type].parse(entry.name, words)
  return definition.ok ? definition : err(errorIn(entry, definition.error))
}

export interface ReplicaLocations {
  /** Copies in each place. */
  readonly count: number
  /** Blocks of each copy. */
  readonly length: number
  readonly places: readonly string[]
}
export const DEFAULT_REPLICA_BLOCKS = 8192

/** `mddbNN [-c count] [-l length] slice ...`, used by metadb alone. */
export const replicaLocations = (entry: TabEntry): Result<ReplicaLocations, TabError> => {
  const words = entry.words.map((w) => w.text)
  const bad = (code: 'syntax' | 'illegalOption', word?: number): Result<never, TabError> =>
    err(
      errorIn(entry, {
        ...metaError(code, word === undefined ? entry.name : `${entry.name}: "${words[word] ?? ''}"`),
        ...(word === undefined ? {} : { word }),
      }),
    )
  if (entry.type !== 'replicas') return bad('syntax')
  const options = getopt(words, 0, 'c:l:')
  if (!options.ok) return bad('illegalOption', options.error)
  let count = 1
  let length = DEFAULT_REPLICA_BLOCKS
  for (const { letter, value, at } of options.value.options) {
    if (value === null || !/^\d{1,9}$/.test(value) || Number(value) === 0) return bad('syntax', at)
    if (letter === 'c') count = Number(value)
    else length = Number(value)
  }
  const places = words.slice(options.value.next)
  return places.length === 0 ? bad('syntax') : ok({ count, length, places })
}

/** md.tab form of a definition: definitionOf(parse(printDefinition(d))) equals d. */
export const printDefinition = (d: Definition): string => kindOf(d.kind).print(d)

/** Words as a line of md.tab. */
export const printEntry = (e: Pick<TabEntry, 'set' | 'name' | 'words'>): string =>
  [e.set === null ? e.name : `${e.set}/${e.name}`, ...e.words.map((w) => w.text)].join(' ')

export const printTab = (lines: readonly string[]): string => lines.map((l) => `${l}\n`).join('')

/** Component words that a command must look up before the entries can be built. */
export const componentWords = (entries: readonly TabEntry[]): readonly string[] =>
  entries.flatMap((e) => {
    const d = definitionOf(e)
    return d.ok ? kindOf(d.value.kind).componentWords(d.value) : []
  })

/** Components whose headers must be read before the entries can be built. */
export const keptWords = (entries: readonly TabEntry[]): readonly string[] =>
  entries.flatMap((e) => {
    const d = definitionOf(e)
    return d.ok && d.value.kind === 'raid5' && d.value.keep ? d.value.columns : []
  })

/** An md.tab that does not exist is empty. */
export const NO_TAB = (file: string): Tab => ({ file, entries: [] })

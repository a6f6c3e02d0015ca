/**
 * `mddb.cf`: where the replicas are (commands.md 6.3). Columns are SVM's, with our values in them: `file` or
 * `block` for the driver, which of several copies for the minor number, the first block shown by metadb, replica id
 * and path for the device id, and the checksum that makes everything sum to 42. Blanks, controls and `%` in a path
 * are written as %XX. A line that does not add up is reported and skipped: the replicas list each other.
 */
import { open, readFile, rename, unlink } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { ID_PATTERN, type Listed } from './format.js'

const NAME = 'mddb.cf'
const HEADER = '#metadevice database location file do not hand edit\n#driver\tminor_t\tdaddr_t\tdevice id\tchecksum\n'
const DEVICE_ID = /^id1,metadisk@([0-9a-f]{32})(\/.*)$/

export interface Locations {
  /** Whether the file has at least one line that should name a replica. */
  readonly any: boolean
  readonly list: readonly Listed[]
  readonly notices: readonly string[]
}

const encodePath = (path: string): string =>
  [...Buffer.from(path, 'utf8')]
    .map((b) => (b <= 0x20 || b === 0x25 || b >= 0x7f ? `%${b.toString(16).padStart(2, '0')}` : String.fromCharCode(b)))
    .join('')
const decodePath = (text: string): string | undefined => {
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}
const sum = (s: string): number => Buffer.from(s, 'utf8').reduce((a, b) => a + b, 0)
const checksum = (driver: string, minor: number, block: number, id: string): number =>
  42 - sum(driver) - minor - block - sum(id)

const placeOf = (path: string, index: number): string => {
  if (basename(path) === `mddb.${index}`) return dirname(path)
  return index > 0 && path.endsWith(`.${index}`) ? path.slice(0, -`.${index}`.length) : path
}

const parseLine = (line: string): Listed | string => {
  const [driver, minorText, blockText, field, sumText, ...rest] = line.split('\t')
  if (driver === undefined || field === undefined || sumText === undefined || rest.length > 0)
    return 'error in mddb.cf file'
  const numbers = [minorText, blockText, sumText].map((w) => (/^-?\d{1,15}$/.test(w ?? '') ? Number(w) : NaN))
  const [minor = NaN, block = NaN, wanted = NaN] = numbers
  if (numbers.some(Number.isNaN) || minor < 0) return 'error in mddb.cf file'
  if (checksum(driver, minor, block, field) !== wanted) return 'checksum error in mddb.cf file'
  const m = DEVICE_ID.exec(field)
  const id = m?.[1]
  const path = decodePath(m?.[2] ?? '')
  if (id === undefined || !ID_PATTERN.test(id) || path === undefined || path === '') return 'error in mddb.cf file'
  if (driver !== 'file' && driver !== 'block') return 'error in mddb.cf file'
  const place = placeOf(path, minor)
  return { id, path, place, kind: driver, index: minor, firstBlock: null, blocks: null, identity: null }
}

export const parseLocations = (text: string): Locations => {
  const list: Listed[] = []
  const notices: string[] = []
  let any = false
  for (const line of text.split('\n')) {
    if (line === '' || line.startsWith('#')) continue
    any = true
    const parsed = parseLine(line)
    if (typeof parsed === 'string') notices.push(parsed)
    else if (!list.some((l) => l.id === parsed.id)) list.push(parsed)
  }
  return { any, list, notices }
}

export const formatLocations = (list: readonly Listed[]): string =>
  HEADER +
  list
    .map((l) => {
      const field = `id1,metadisk@${l.id}${encodePath(l.path)}`
      const first = l.firstBlock ?? 16
      return `${l.kind}\t${l.index}\t${first}\t${field}\t${checksum(l.kind, l.index, first, field)}\n`
    })
    .join('')

/** A file that cannot be read is not the same as none: then nobody knows whether replicas exist. */
export const readLocations = async (dir: string): Promise<Locations> => {
  try {
    return parseLocations(await readFile(join(dir, NAME), 'utf8'))
  } catch (e) {
    const error = e as NodeJS.ErrnoException
    if (error.code === 'ENOENT') return { any: false, list: [], notices: [] }
    return { any: true, list: [], notices: [`error in mddb.cf file: ${error.message}`] }
  }
}

/** Replaces the file in one step that a power cut cannot halve. @returns what went wrong, or null. */
export const writeLocations = async (dir: string, list: readonly Listed[]): Promise<NodeJS.ErrnoException | null> => {
  const path = join(dir, NAME)
  const text = formatLocations(list)
  try {
    if ((await readFile(path, 'utf8').catch(() => undefined)) === text) return null
    const file = await open(`${path}.new`, 'w', 0o644)
    try {
      await file.writeFile(text)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(`${path}.new`, path)
    const d = await open(dir, 'r')
    try {
      await d.sync()
    } finally {
      await d.close()
    }
    return null
  } catch (e) {
    await unlink(`${path}.new`).catch(() => undefined)
    return e as NodeJS.ErrnoException
  }
}

/**
 * Sentences of the commands themselves: argument errors (commands.md 0.1, the printer without a host),
 * the legend of metadb and what surrounds reports. Errors of the daemon are in catalogue.ts.
 */
export const ARGUMENT_ERRORS = {
  illegalOption: 'illegal option -- %s',
  missingArgument: 'option requires an argument -- %s',
  unwantedArgument: 'option takes no argument -- %s',
  tooManyArguments: 'too many arguments',
  unknownCommand: 'unknown command',
  noDevices: 'no devices specified to attach or detach',
  countTooSmall: 'count (-c) must be 1 or more',
  sizeTooBig: 'size (-l) is too big',
  sizeTooSmall: 'size (-l) is too small',
  badFormat: '%s: bad format',
  illegalBufferSize: 'illegal buffer size %s',
  incompatibleAllSet: 'incompatible options: -a and -s',
  incompatible: 'incompatible options: %s and %s',
  probeNeedsRoot: '-i option requires super-user privilages',
  badInterval: '%s: the interval must be 1 to 3600 seconds',
} as const satisfies Record<string, string>
export type ArgumentError = keyof typeof ARGUMENT_ERRORS

export const argumentError = (code: ArgumentError, ...args: readonly string[]): string => {
  let i = 0
  return ARGUMENT_ERRORS[code].replace(/%s/g, () => args[i++] ?? '')
}

export const STALE_BANNER = '****\nWARNING: Stale state database replicas. Metastat output may be inaccurate.\n****\n\n'

/** In printing order: letter, meaning; the hole is the path of mddb.cf. */
const LEGEND: readonly (readonly [string, string])[] = [
  ['r', 'replica does not have device relocation information'],
  ['o', 'replica active prior to last mddb configuration change'],
  ['u', 'replica is up to date'],
  ['l', 'locator for this replica was read successfully'],
  ['c', "replica's location was in %s"],
  ['p', "replica's location was patched in kernel"],
  ['m', 'replica is master, this is replica selected as input'],
  ['t', 'tagged data is associated with the replica'],
  ['W', 'replica has device write errors'],
  ['a', 'replica is active, commits are occurring to this replica'],
  ['M', 'replica had problem with master blocks'],
  ['D', 'replica had problem with data blocks'],
  ['F', 'replica had format problems'],
  ['S', 'replica is too small to hold current data base'],
  ['R', 'replica had device read errors'],
  ['B', 'tagged data associated with the replica is not valid'],
]
export const replicaLegend = (mddbCf: string): string =>
  LEGEND.map(([letter, text]) => ` ${letter} - ${text.replace('%s', () => mddbCf)}\n`).join('')

export const detachedText = (command: string): string =>
  `${command}: interrupted; what metad has begun goes on without this command\n`

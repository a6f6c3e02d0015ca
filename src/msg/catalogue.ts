/**
 * Every error sentence an administrator can meet, keyed by code. `%s` holes are filled from
 * MetaError.args in order. Texts are SVM's (commands.md 9) where SVM has one; ours are marked `metadisk`.
 */
export const ERRORS = {
  // general
  syntax: 'syntax error',
  illegalOption: 'illegal option',
  invalidInterlace: 'invalid interlace',
  invalidReadOption: 'invalid read option',
  invalidWriteOption: 'invalid write option',
  invalidPass: 'invalid pass number',
  invalidName: 'Invalid name for metadevice or hot spare pool.',
  nameInUse: 'Name already in use for metadevice or hot spare pool.',
  noSuchSet: 'no such set',
  setInconsistent: 'set name is inconsistent',
  notRoot: 'Permission denied.  You must have root privilege to execute this command.',
  /** args: the sentence of strerror(errno), as SVM prints system errors. */
  sys: '%s',
  // device
  notADisk: 'not a disk device',
  ambiguousName: 'Error: ambiguous device name.',
  isMetadevice: 'is a metadevice',
  hasReplica: 'has a metadevice database replica',
  noReplica: 'no metadevice database replica on device',
  // use
  mountedOn: 'is mounted on %s',
  swappedOn: 'is swapped on',
  appearsTwice: 'has appeared more than once in the specification of %s',
  overlaps: 'overlaps with device in %s',
  overlapsMounted: "overlaps with %s which is mounted as '%s'",
  overlapsSwap: 'overlaps with %s which is a swap device',
  identicalDevid: 'identical devid detected on %s',
  // metadevice
  invalidUnit: 'invalid unit',
  unitNotSetUp: 'unit not set up',
  unitNotFound: 'unit not found',
  unitExists: 'unit already set up',
  notAMirror: 'unit is not a mirror',
  notAStripe: 'unit is not a concat/stripe',
  unknownType: 'unknown metadevice type',
  /** args: name of the unit, name of its type. */
  invalidType: 'invalid metadevice type %s',
  inUse: 'metadevice in use',
  forceNeeded: 'operation requires -f (force) flag',
  isOpen: 'metadevice is open',
  /** RAID5 whose initialization failed. */
  columnsNotOkay: 'all components must be Okay to perform this operation',
  /** metadisk: an open while a RAID5 metadevice has no data yet; SVM only answers EAGAIN. */
  notInitialised: 'metadevice is not initialized',
  resyncInProgress: 'resync in progress',
  invalidStripe: 'invalid stripe configuration',
  invalidMirror: 'invalid mirror configuration',
  invalidRaid: 'invalid RAID configuration',
  onlyClear: 'only valid action is metaclear',
  replaceErredFirst: 'must replace errored component first',
  raidLastErred: 'in Last Erred state, errored components must be replaced',
  invalidColumns: 'invalid column count',
  invalidSlots: 'simultaneous writes out of range',
  notRaided: 'devices were not RAIDed previously or are specified in the wrong order',
  notEnoughStripes: 'not enough stripes specified',
  notEnoughComponents: 'not enough components specified',
  notEnoughSubmirrors: 'not enough submirrors specified',
  maxSubmirrors: 'mirror has maximum number of submirrors',
  submirrorTooSmall: 'submirror too small to attach',
  labelledToUnlabelled: "can't attach labeled submirror to an unlabeled mirror",
  submirrorNotFound: "can't find submirror in mirror",
  lastSubmirror: 'attempt to detach last running submirror',
  noReadableSubmirrors: 'operation would result in no readable submirrors',
  /** metaoffline, metaonline, metareplace. */
  submirrorState: 'attempt operation on a submirror in illegal state',
  submirrorErred: 'attempt an operation on a submirror that has erred components',
  clearBadSubmirrors: 'attempted to clear mirror with submirror(s) in invalid state',
  unavailable: "component is in unavailable state; run 'metastat -i'",
  insufficientDevices: 'insufficient devices to open',
  componentNotFound: "can't find component in unit",
  replaceLast: 'attempt to replace a component on the last running submirror',
  replaceOrder: 'component in invalid state to replace - Replace "Maintenance" components first',
  replaceTooSmall: 'replace failure, new component is too small',
  componentOpen: 'unable to open concat/stripe component',
  growDelayed: 'growing of metadevice delayed',
  /** args: limit in blocks. */
  sizeOverflow: 'unit size overflow, limit is %s blocks',
  noSoftPartitions: 'no soft partitions on this device',
  invalidHsp: 'invalid hotspare pool',
  hspExists: 'hotspare pool is already setup',
  hspInUse: 'hotspare pool in use',
  noHsps: 'no hotspare pools found',
  hspBusy: 'hotspare pool is busy',
  hspReferenced: 'hotspare pool is referenced',
  hspNotChanged: "can't modify hot spare pool, hot spare in use",
  // hot spare
  noSuchSpare: "hotspare doesn't exist",
  spareInUse: 'hotspare is in use',
  spareThere: 'add or replace failed, hot spare is already in use',
  spareNotBroken: "hotspare isn't broken, can't enable",
  spareNotEnabled: 'cannot enable hotspared device',
  // state database
  noDatabases: 'there are no existing databases',
  replicaExists: 'metadevice database replica exists on device',
  lastReplica: 'must have at least 1 database (-f overrides)',
  deleteMakesStale:
    'Deleting specified valid replicas results in stale state database. Configuration changes with stale database result in panic(-f overrides)',
  readBackFailed: 'data not returned correctly from disk',
  stale: 'stale databases',
  commitFailed: 'state database commit failed',
  /** args: how many, the maximum. */
  tooManyReplicas: '%s metadevice database replicas is too many; the maximum is %s',
  /** args: size in blocks. */
  replicaTooSmall: 'device size %s is too small for metadevice database replica',
  databaseFull: "metadevice database is full, can't create new records",
  // metadisk's own
  /** args: the engine's reason; a defect of metadisk, never of the configuration. */
  refusedByEngine: 'the engine refused the plan: %s',
  /** The storage at a component's path is not the one that was recorded. */
  replaced: 'storage was replaced since it was configured',
  /** args: blocks now, blocks recorded. */
  shrunk: 'storage shrank to %s blocks, %s were configured',
  /** A defect of metadisk. args: what happened to which column in which state. */
  columnState: 'operation on a column in illegal state: %s',
  verifyInProgress: 'the submirrors are being compared already',
  parityVerifyInProgress: 'data and parity are being compared already',
  parityVerifyCancelled: 'comparison of data and parity was cancelled',
  verifyCancelled: 'comparison of the submirrors was cancelled',
  nothingToCompare: 'fewer than two submirrors are in step',
  /** object: key of the record; args: what is wrong with it. */
  damagedRecord: 'state database record is damaged: %s',
  /** args: kind of component that this release does not serve. */
  unsupported: '%s is not supported by this release',
  /** args: the maximum. */
  tooManyColumns: 'a RAID metadevice has at most %s columns',
  /** A column of a volume that Solaris made, which was not closed since it was written. */
  solarisJournal: 'journal holds writes that are not in place yet; let Solaris open and close the metadevice',
  /** args: what the server said. */
  protocol: 'control socket: %s',
  daemonAbsent: 'metad is not running (%s)',
} as const satisfies Record<string, string>

export type ErrorCode = keyof typeof ERRORS

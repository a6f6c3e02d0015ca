/**
 * Every command with wrong, missing, overlapping and absurd words, against a real metad: exit status,
 * SVM's message on stderr, nothing on stdout, and nothing changed. `$x` is disks/x under the root; `~` a
 * blank inside a word; `''` an empty word.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { spawnSync } from 'node:child_process'
import { hostname } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { startRig } from './rig.js'

const rig = await startRig(t)
const { metad } = rig

const NAME = 'Invalid name for metadevice or hot spare pool.'
const TWICE = (unit: string): string => `has appeared more than once in the specification of ${unit}`
const REPLICA = 'has a metadevice database replica'
const USAGE = 'usage'
const ENOSPC = 'No space left on device'
const ENOENT = 'No such file or directory'

/** Line, what stderr says behind `cmd: host: ` (USAGE: the usage block), exit status when it is not 1. */
type Row = readonly [line: string, error: string, status?: number]

const INIT: readonly Row[] = [
  ['metainit', USAGE],
  ['metainit -a d9', USAGE],
  ['metainit -r d9', USAGE],
  ['metainit -z d9 1 1 $free1', USAGE],
  ['metainit -s blue d9 1 1 $free1', 'setname "blue": no such set'],
  ['metainit blue/d9 1 1 $free1', 'setname "blue": no such set'],
  ['metainit d1', 'd1: Name already in use for metadevice or hot spare pool.'],
  ['metainit d0 1 1 $free1', 'd0: unit already set up'],
  ['metainit -n d0 1 1 $free1', 'd0: unit already set up'],
  ['metainit 9d 1 1 $free1', `9d: ${NAME}`],
  ['metainit all 1 1 $free1', `all: ${NAME}`],
  ['metainit NONE 1 1 $free1', `NONE: ${NAME}`],
  ["metainit '' 1 1 $free1", NAME],
  ['metainit d9/ 1 1 $free1', `d9/: ${NAME}`],
  ['metainit d~9 1 1 $free1', `d 9: ${NAME}`],
  ['metainit ../d9 1 1 $free1', 'setname "..": no such set'],
  ['metainit /dev/md/dsk/ 1 1 $free1', `/dev/md/dsk/: ${NAME}`],
  ['metainit /dev/md/x/y/dsk/d9 1 1 $free1', `/dev/md/x/y/dsk/d9: ${NAME}`],
  [`metainit d${'9'.repeat(300)} 1 1 $free1`, `d${'9'.repeat(300)}: ${NAME}`],
  // Counts.
  ['metainit d9 0', 'd9: not enough stripes specified'],
  ['metainit d9 1', 'd9: not enough stripes specified'],
  ['metainit d9 1 1', 'd9: not enough components specified'],
  ['metainit d9 1 0 $free1', 'd9: not enough components specified'],
  ['metainit d9 2 1 $free1', 'd9: not enough stripes specified'],
  ['metainit d9 1 2 $free1', 'd9: not enough components specified'],
  ['metainit d9 99999999999 1 $free1', 'd9: not enough stripes specified'],
  ['metainit d9 1 99999999999 $free1', 'd9: not enough components specified'],
  ['metainit d9 999999999999999999999 1 $free1', 'd9: "999999999999999999999": syntax error'],
  ['metainit d9 1 x $free1', 'd9: "x": syntax error'],
  ['metainit d9 1 1 $free1 $free2', 'd9: "$free2": syntax error'],
  ['metainit d9 1 1 $free1 1 $free2', 'd9: "1": syntax error'],
  // Options of the entry.
  ['metainit d9 1 1 $free1 -q', 'd9: "-q": illegal option'],
  ['metainit d9 1 1 $free1 -i', 'd9: "-i": illegal option'],
  ['metainit d9 1 1 $free1 -i 16k -i 32k', 'd9: "-i": syntax error'],
  ['metainit d9 1 2 $free1 -i 16k $free2', 'd9: not enough components specified'],
  ['metainit d9 1 1 $free1 -i 7k', 'd9: "7k": invalid interlace'],
  ['metainit d9 1 1 $free1 -i 8193', 'd9: "8193": invalid interlace'],
  ['metainit d9 1 1 $free1 -i 101m', 'd9: "101m": invalid interlace'],
  ['metainit d9 1 1 $free1 -i 99999999999999m', 'd9: "99999999999999m": invalid interlace'],
  ['metainit d9 1 1 $free1 -i -16k', 'd9: "-16k": invalid interlace'],
  ["metainit d9 1 1 $free1 -i ''", 'd9: "": invalid interlace'],
  ['metainit d9 1 1 $free1 -i 32q', '"32q": invalid interlace'],
  ['metainit d9 1 1 $free1 -h hsp001', 'hsp001: invalid hotspare pool'],
  ['metainit d9 -r $free1 $free2', 'd9: invalid RAID configuration'],
  ['metainit d9 -r $free1 $free2 $dir', '$dir: not a disk device'],
  ['metainit d9 -r $free1 $free2 $fifo -o 2', 'd9: invalid column count'],
  ['metainit d9 -r $free1 $free2 $fifo -o 4', 'd9: invalid column count'],
  ['metainit d9 -r $free1 $free2 $fifo -w 101', 'd9: simultaneous writes out of range'],
  ['metainit d9 -r $free1 $free2 $fifo -i 1b', 'd9: "1b": invalid interlace'],
  ['metainit d9 -r $free1 $free2 $fifo -k -k', 'd9: "-k": syntax error'],
  ['metainit d9 -r $free1 $free2 $fifo -h hsp001', 'hsp001: invalid hotspare pool'],
  ['metainit d9 -p $free1 1m', 'd9: soft partition is not supported by this release'],
  ['metainit d9 -t d4', 'd9: trans is not supported by this release'],
  ['metainit mddb01 $free1', 'mddb01: a replica location as a metadevice is not supported by this release'],
  // What is no storage.
  ['metainit d9 1 1 $nowhere', `$nowhere: ${ENOENT}`],
  ['metainit d9 1 1 nowhere', `nowhere: ${ENOENT}`],
  ["metainit d9 1 1 ''", 'not a disk device'],
  ['metainit d9 1 1 $dir', '$dir: not a disk device'],
  ['metainit d9 1 1 $fifo', '$fifo: not a disk device'],
  ['metainit d9 1 1 /dev/zero', '/dev/zero: not a disk device'],
  ['metainit d9 1 1 $loop', '$loop: Too many levels of symbolic links'],
  ['metainit d9 1 1 $dangling', `$dangling: ${ENOENT}`],
  ['metainit d9 1 1 $a1/x', '$a1/x: Not a directory'],
  [`metainit d9 1 1 /${'x'.repeat(300)}`, `/${'x'.repeat(300)}: File name too long`],
  ['metainit d9 1 1 $with~blank', 'd9: "$with blank": syntax error'],
  ['metainit d9 1 1 $back\\', 'd9: "$back\\": syntax error'],
  ['metainit d9 1 1 $tiny', `$tiny: ${ENOSPC}`],
  ['metainit d9 1 1 $empty', `$empty: ${ENOSPC}`],
  ['metainit d9 1 1 $short', `d9: ${ENOSPC}`],
  ['metainit d9 1 2 $free1 $tiny', `$tiny: ${ENOSPC}`],
  ['metainit d9 1 1 nbd://localhost/x', 'nbd://localhost/x: a remote NBD component is not supported by this release'],
  ['metainit d9 1 1 c0t0d0s0', `c0t0d0s0: ${ENOENT}`],
  ['metainit d9 1 1 /dev/dsk/c0t0d0s0', `/dev/dsk/c0t0d0s0: ${ENOENT}`],
  // What is in use.
  ['metainit d9 1 1 $a1', `$a1: ${TWICE('d1')}`],
  ['metainit -n d9 1 1 $a1', `$a1: ${TWICE('d1')}`],
  ['metainit -f d9 1 1 $a1', `$a1: ${TWICE('d1')}`],
  ['metainit d9 1 1 $hard', `$hard: ${TWICE('d1')}`],
  ['metainit d9 1 1 $soft', `$soft: ${TWICE('d1')}`],
  ['metainit d9 1 1 $dir/..//a1', `$a1: ${TWICE('d1')}`],
  ['metainit d9 1 2 $free1 $c2', `$c2: ${TWICE('d4')}`],
  ['metainit d9 1 2 $free1 $free1', `$free1: ${TWICE('d9')}`],
  ['metainit d9 2 1 $free1 1 disks/free1', `$free1: ${TWICE('d9')}`],
  ['metainit d9 1 1 $r1', `$r1: ${REPLICA}`],
  ['metainit -f d9 1 1 $hardreplica', `$hardreplica: ${REPLICA}`],
  ['metainit d9 1 1 d4', 'd4: is a metadevice'],
  ['metainit d9 1 1 /dev/md/dsk/d4', 'd4: is a metadevice'],
  ['metainit d9 1 1 /dev/md/rdsk/d8', 'd8: unit not found'],
  ['metainit d9 1 1 /dev/md/d4', `/dev/md/d4: ${NAME}`],
  // Hot spare pools: a word that is no number and no option makes one.
  ['metainit d9 x 1 $free1', `x: ${ENOENT}`],
  ['metainit d0 $free1', 'd0: Name already in use for metadevice or hot spare pool.'],
  ['metainit hsp001 $nowhere', `$nowhere: ${ENOENT}`],
  ['metainit hsp001 $free1 $free1', `$free1: ${TWICE('hsp001')}`],
  ['metainit hsp001 $free1 $a1', `$a1: ${TWICE('d1')}`],
  ['metainit hsp001 $r1', `$r1: ${REPLICA}`],
  ['metainit hsp001 d4', 'd4: is a metadevice'],
  ['metainit hsp001 /dev/zero', '/dev/zero: not a disk device'],
  // Mirrors.
  ['metainit d9 -m', 'd9: not enough submirrors specified'],
  ['metainit d9 -m -g', 'd9: not enough submirrors specified'],
  ['metainit d9 -m 1', 'd9: not enough submirrors specified'],
  ['metainit d9 -m d8', 'd8: unit not set up'],
  ['metainit d9 -m d9', 'd9: unit not set up'],
  ['metainit d9 -m d1', 'd1: metadevice in use'],
  ['metainit d9 -m d3', 'd3: metadevice is open'],
  ['metainit d9 -m d0', 'd0: invalid unit'],
  ['metainit d9 -m d4 d4', `d4: ${TWICE('d9')}`],
  ['metainit d9 -m d4 d1', 'd1: metadevice in use'],
  ['metainit d9 -m $free1', `$free1: ${NAME}`],
  ['metainit d9 -m d4 d5 d6 d7 d8', 'd9: mirror has maximum number of submirrors'],
  ['metainit d9 -m d4 -g -r', 'd9: "-r": invalid read option'],
  ['metainit d9 -m d4 -gg', 'd9: "-gg": invalid read option'],
  ['metainit d9 -m d4 -S -S', 'd9: "-S": invalid write option'],
  ['metainit d9 -m d4 -x', 'd9: "-x": illegal option'],
  ['metainit d9 -m d4 10', 'd9: "10": invalid pass number'],
  ['metainit d9 -m d4 99999999999999999999', 'd9: "99999999999999999999": invalid pass number'],
  ['metainit d9 -m d4 1 2', 'd9: "2": syntax error'],
  ['metainit d9 -m d4 1 -g', 'd9: "-g": syntax error'],
]

const ATTACH: readonly Row[] = [
  ['metattach', USAGE],
  ['metattach -i', USAGE],
  ['metattach -z d0 d4', USAGE],
  ['metattach -s blue d0 d4', 'setname "blue": no such set'],
  ['metattach 9 d1', `9: ${NAME}`],
  ['metattach d9 $free1', 'd9: unit not set up'],
  ['metattach d0 d9', 'd9: unit not set up'],
  ['metattach d0 d1', 'd1: metadevice in use'],
  ['metattach d0 d22', 'd22: metadevice in use'],
  ['metattach d0 d3', 'd3: metadevice is open'],
  ['metattach -n d0 d3', 'd3: metadevice is open'],
  ['metattach d0 d0', 'd0: invalid unit'],
  ['metattach d0 d20', 'd20: invalid unit'],
  ['metattach d0 d4 d5', 'd0: "d5": syntax error'],
  ['metattach d0 $free1', `$free1: ${NAME}`],
  ['metattach -i 32k d0 d4', 'd0: "-i": illegal option'],
  ['metattach d4', 'd4: not enough components specified'],
  ['metattach d4 $nowhere', `$nowhere: ${ENOENT}`],
  ['metattach d4 $a1', `$a1: ${TWICE('d1')}`],
  ['metattach d4 $hard', `$hard: ${TWICE('d1')}`],
  ['metattach d4 $c1', `$c1: ${TWICE('d4')}`],
  ['metattach d4 $free1 $free1', `$free1: ${TWICE('d4')}`],
  ['metattach d4 $free1 $r1', `$r1: ${REPLICA}`],
  ['metattach d4 $tiny', `$tiny: ${ENOSPC}`],
  ['metattach d4 /dev/zero', '/dev/zero: not a disk device'],
  ['metattach d4 d1', 'd1: is a metadevice'],
  ['metattach -i 7k d4 $free1', 'd4: "7k": invalid interlace'],
  ['metattach -i 7y d4 $free1', '"7y": invalid interlace'],
]

const DETACH: readonly Row[] = [
  ['metadetach', USAGE],
  ['metadetach d0', USAGE],
  ['metadetach d0 d1 d2', USAGE],
  ['metadetach -q d0 d1', USAGE],
  ['metadetach d9 d1', 'd9: unit not set up'],
  ['metadetach d0 d9', 'd9: unit not set up'],
  ['metadetach d0 d4', "d0: can't find submirror in mirror"],
  ['metadetach d0 d0', "d0: can't find submirror in mirror"],
  ['metadetach d20 d22', 'd20: resync in progress'],
  ['metadetach -f d20 d22', 'd20: resync in progress'],
  ['metadetach d0 $a1', `$a1: ${NAME}`],
]

const SIDE: readonly Row[] = ['metaoffline', 'metaonline'].flatMap((c): readonly Row[] => [
  [c, USAGE],
  [`${c} d0`, USAGE],
  [`${c} d0 d1 d2`, USAGE],
  [`${c} -q d0 d1`, USAGE],
  [`${c} -s blue d0 d1`, 'setname "blue": no such set'],
  [`${c} blue/d0 d1`, 'setname "blue": no such set'],
  [`${c} 9 d1`, `9: ${NAME}`],
  [`${c} d0 $a1`, `$a1: ${NAME}`],
  [`${c} d9 d1`, 'd9: unit not set up'],
  [`${c} d0 d9`, 'd9: unit not set up'],
  [`${c} d4 d1`, 'd4: unit is not a mirror'],
])

const OFFLINE: readonly Row[] = [
  ...SIDE,
  ['metaonline -f d0 d1', USAGE],
  ['metaoffline d0 d4', "d0: can't find submirror in mirror"],
  ['metaoffline -f d0 d0', "d0: can't find submirror in mirror"],
  ['metaoffline d20 d22', 'd20: resync in progress'],
  ['metaoffline -f d20 d22', 'd20: resync in progress'],
  ['metaoffline d20 d4', 'd20: resync in progress'],
  ['metaonline d0 d4', "d0: can't find submirror in mirror"],
  ['metaonline d0 d1', 'd0: attempt operation on a submirror in illegal state'],
  ['metaonline d20 d22', 'd20: attempt operation on a submirror in illegal state'],
]

const REPLACE: readonly Row[] = [
  ['metareplace', USAGE],
  ['metareplace d0', USAGE],
  ['metareplace d0 $a1', USAGE],
  ['metareplace d0 $a1 $free1 $free2', USAGE],
  ['metareplace -e', USAGE],
  ['metareplace -e d0', USAGE],
  ['metareplace -e d0 $a1 $free1', USAGE],
  ['metareplace -q d0 $a1 $free1', USAGE],
  ['metareplace -s blue -e d0 $a1', 'setname "blue": no such set'],
  ['metareplace -e 9 $a1', `9: ${NAME}`],
  ['metareplace -e d9 $a1', 'd9: unit not set up'],
  ['metareplace -e d4 $c1', 'd4: unknown metadevice type'],
  ['metareplace -f d4 $c1 $free1', 'd4: unknown metadevice type'],
  ['metareplace -e d20 $m2', 'd20: resync in progress'],
  ['metareplace -f -e d20 $m1', 'd20: resync in progress'],
  ['metareplace -e d0 $free1', "d0: $free1: can't find component in unit"],
  ['metareplace -e d0 $nowhere', "d0: $nowhere: can't find component in unit"],
  ['metareplace -e d0 d1', "d0: d1: can't find component in unit"],
  ['metareplace d0 $c1 $free1', "d0: $c1: can't find component in unit"],
  ['metareplace d0 $a1 $short', 'd0: $short: replace failure, new component is too small'],
  ['metareplace d0 $a1 $tiny', 'd0: $tiny: replace failure, new component is too small'],
  ['metareplace d0 $a1 $nowhere', `$nowhere: ${ENOENT}`],
  ['metareplace d0 $a1 $dir', '$dir: not a disk device'],
  ['metareplace d0 $a1 d4', 'd4: is a metadevice'],
  ['metareplace d0 $a1 $a2', `$a2: ${TWICE('d2')}`],
  ['metareplace d0 $a1 $a1', `$a1: ${TWICE('d1')}`],
  ['metareplace d0 $a1 $c2', `$c2: ${TWICE('d4')}`],
  ['metareplace d0 $a1 $r1', 'd0: $r1: replace failure, new component is too small'],
]

const CLEAR: readonly Row[] = [
  ['metaclear', USAGE],
  ['metaclear -a d0', USAGE],
  ['metaclear -ap', USAGE],
  ['metaclear d9', 'd9: unit not set up'],
  ['metaclear -r d9', 'd9: unit not set up'],
  ['metaclear d1', 'd1: metadevice in use'],
  ['metaclear -r d1', 'd1: metadevice in use'],
  ['metaclear -f /dev/md/rdsk/d22', 'd22: metadevice in use'],
  ['metaclear d3', 'd3: metadevice is open'],
  ['metaclear -f d3', 'd3: metadevice is open'],
  ['metaclear -r d3', 'd3: metadevice is open'],
  ['metaclear d20', 'd20: metadevice is open'],
  ['metaclear -r d20', 'd20: metadevice is open'],
  ['metaclear -p $free1', '$free1: no soft partitions on this device'],
  ['metaclear -p d4', 'd4: no soft partitions on this device'],
  ['metaclear $a1', `$a1: ${NAME}`],
  ['metaclear all', `all: ${NAME}`],
]

const PARAM: readonly Row[] = [
  ['metaparam', USAGE],
  ['metaparam d0 d4', USAGE],
  ['metaparam -h', USAGE],
  ['metaparam -h none -r first d0', USAGE],
  // An option of another type of metadevice.
  ['metaparam -h none d0', USAGE],
  ['metaparam -r first d4', USAGE],
  ['metaparam -p 1 d4', USAGE],
  ['metaparam d9', 'd9: unit not set up'],
  ['metaparam -r first 9', `9: ${NAME}`],
  ['metaparam -r fastest d0', 'd0: "fastest": invalid read option'],
  ['metaparam -r first -w never d0', 'd0: "never": invalid write option'],
  ['metaparam -r first -p 10 d0', 'd0: "10": invalid pass number'],
  ['metaparam -p -1 d0', 'd0: "-1": invalid pass number'],
  ["metaparam -p '' d0", 'd0: "": invalid pass number'],
  ['metaparam -h hsp001 d4', 'hsp001: invalid hotspare pool'],
  ["metaparam -h '' d4", NAME],
]

const SYNC: readonly Row[] = [
  ['metasync', USAGE],
  ['metasync 2048', USAGE],
  ['metasync -c 2048 d0', USAGE],
  ['metasync -r d0', USAGE],
  ['metasync 99999999999999999999 d0', USAGE],
  ['metasync d9', 'd9: unit not set up', 255],
  ['metasync -c d9', 'd9: unit not set up', 255],
  ['metasync d4', 'd4: unknown metadevice type', 255],
  ['metasync -c d4', 'd4: unknown metadevice type', 255],
  ['metasync 1024 2048', `2048: ${NAME}`, 255],
  ['metasync -8 d0', USAGE],
  ['metasync -c -r', USAGE],
  ['metasync --repair d0', USAGE],
  ['metasync --json d0', USAGE],
  ['metasync --verify', USAGE],
  ['metasync --verify -c d0', USAGE],
  ['metasync --verify d9', 'd9: unit not set up', 255],
  ['metasync --verify d4', 'd4: unknown metadevice type', 255],
  ['metasync --verify --repair d20', 'd20: resync in progress', 255],
]

const HS: readonly Row[] = [
  ['metahs', USAGE],
  ['metahs hsp001', USAGE],
  ['metahs -a', USAGE],
  ['metahs -ad hsp001', USAGE],
  ['metahs -n -a hsp001', USAGE],
  ['metahs -r hsp001 $free1', USAGE],
  ['metahs -r hsp001 $free1 $free2 $m1', USAGE],
  ['metahs -e', USAGE],
  ['metahs -i', 'no hotspare pools found'],
  ['metahs -i hsp001', 'hsp001: invalid hotspare pool'],
  ['metahs -i d4', 'd4: invalid hotspare pool'],
  ['metahs -i 9', `9: ${NAME}`],
  ['metahs -a all $free1', 'no hotspare pools found'],
  ['metahs -a all', `all: ${NAME}`],
  ['metahs -a mddb01 $free1', `mddb01: ${NAME}`],
  ["metahs -a ''", NAME],
  ['metahs -a blue/hsp001 $free1', 'setname "blue": no such set'],
  ['metahs -a d4 $free1', 'd4: Name already in use for metadevice or hot spare pool.'],
  ['metahs -a hsp001 $nowhere', `$nowhere: ${ENOENT}`],
  ['metahs -a hsp001 $free1 $free1', 'hsp001: $free1: add or replace failed, hot spare is already in use'],
  ['metahs -a hsp001 $free1 $a1', `$a1: ${TWICE('d1')}`],
  ['metahs -a hsp001 $hard', `$hard: ${TWICE('d1')}`],
  ['metahs -a hsp001 $r1', `$r1: ${REPLICA}`],
  ['metahs -a hsp001 d4', 'd4: is a metadevice'],
  ['metahs -a hsp001 /dev/zero', '/dev/zero: not a disk device'],
  ['metahs -a hsp001 $empty', '$empty: No space left on device'],
  ['metahs -d hsp001', 'hsp001: invalid hotspare pool'],
  ['metahs -d all $free1', 'no hotspare pools found'],
  ['metahs -r all $free1 $free2', 'no hotspare pools found'],
  ['metahs -e $free1', "$free1: hotspare doesn't exist"],
  ['metahs -e $nowhere', `$nowhere: ${ENOENT}`],
]

const DB: readonly Row[] = [
  ['metadb x', USAGE],
  ['metadb -ad $new', USAGE],
  ['metadb -a', USAGE],
  ['metadb -d', USAGE],
  ['metadb -p a b', USAGE],
  ['metadb -ac0 $new', USAGE],
  ['metadb -acx $new', USAGE],
  ['metadb -al8193 $new', USAGE],
  ['metadb -al15 $new', USAGE],
  ['metadb -s blue -a $new', 'setname "blue": no such set'],
  ['metadb -a $r1', '$r1: metadevice database replica exists on device'],
  ['metadb -a $hardreplica', '$hardreplica: metadevice database replica exists on device'],
  ['metadb -a $new $dir/../new', '$new: metadevice database replica exists on device'],
  ['metadb -a $new $r2', '$r2: metadevice database replica exists on device'],
  ['metadb -a $a1', `$a1: ${TWICE('d1')}`],
  ['metadb -af $hard', `$hard: ${TWICE('d1')}`],
  ['metadb -a $soft', `$soft: ${TWICE('d1')}`],
  ['metadb -a $free1', '$free1: File exists'],
  ['metadb -a $new $free1', '$free1: File exists'],
  ['metadb -a $fifo', '$fifo: not a disk device'],
  ['metadb -a /dev/zero', '/dev/zero: not a disk device'],
  ['metadb -a $loop', '$loop: Too many levels of symbolic links'],
  ['metadb -a $dangling', '$dangling: File exists'],
  ['metadb -a $new $dangling', '$dangling: File exists'],
  ['metadb -a $a1/x', '$a1/x: Not a directory'],
  ['metadb -a $nodir/x', `$nodir/x: ${ENOENT}`],
  ['metadb -a c0t0d0s7', 'c0t0d0s7: a state database replica on a slice is not supported by this release'],
  ['metadb -a -c 48 $new', '51 metadevice database replicas is too many; the maximum is 50'],
  ['metadb -a -c 999999999999999 $new', '1000000000000002 metadevice database replicas is too many; the maximum is 50'],
  ['metadb -a mddb01', 'mddb01: no such entry in @etc/md.tab'],
  ['metadb -d $free1', '$free1: no metadevice database replica on device'],
  ['metadb -d $r1 $nowhere', '$nowhere: no metadevice database replica on device'],
  ['metadb -d $hardreplica', '$hardreplica: no metadevice database replica on device'],
  ['metadb -d $r1 $r2 $r3', 'must have at least 1 database (-f overrides)'],
  ['metadb -p $nowhere', `$nowhere: ${ENOENT}`],
  ['metadb -p $dir', '$dir: Is a directory'],
  ['metadb -p $r1', '$r1: error in mddb.cf file'],
  ['metadb -p $empty', '$empty: error in mddb.cf file'],
]

const STAT: readonly Row[] = [
  ['metastat -Z', USAGE],
  ['metastat --json=3', USAGE],
  ['metastat -a -s blue', USAGE],
  ['metastat --watch=0', USAGE],
  ['metastat -s blue', 'setname "blue": no such set'],
  ['metastat d9', 'd9: unit not set up'],
  ['metastat -p d9', 'd9: unit not set up'],
  ['metastat -c 9', `9: ${NAME}`],
  ['metastat blue/d0', 'setname "blue": no such set'],
]

const words = (line: string): string[] =>
  line
    .split(' ')
    .map((w) => (w === "''" ? '' : w.replaceAll('~', ' ').replace(/^\$(.*)$/s, (_, name: string) => rig.path(name))))

const printed = (error: string): string =>
  error.replace(/\$(?=\w)/g, () => `${rig.path('')}/`).replace('@', `${metad.root}/`)

for (const [group, rows] of Object.entries({
  INIT,
  ATTACH,
  DETACH,
  OFFLINE,
  REPLACE,
  CLEAR,
  PARAM,
  HS,
  SYNC,
  DB,
  STAT,
})) {
  t.test(`${rows.length} refusals: ${group.toLowerCase()}`, async (t) => {
    let before = await rig.snapshot()
    const files = readdirSync(rig.path(''))
    for (const [line, error, status = 1] of rows) {
      const [command = '', ...args] = words(line)
      const said = metad.run(command, args)
      t.equal(said.status, status, `${line}: status`)
      t.equal(said.stdout, '', `${line}: stdout`)
      if (error === USAGE) t.match(said.stderr, new RegExp(`^(?:${command}: .*\n)?usage:\t${command} `), line)
      else t.equal(said.stderr, `${command}: ${hostname()}: ${printed(error)}\n\n`, line)
      const after = await rig.snapshot()
      if (after !== before) t.fail(`${line}: changed something`, { before, after })
      before = after
    }
    t.same(readdirSync(rig.path('')), files, 'no file was made or removed')
    t.equal(metad.must('metastat', ['-p']), readFileSync(`${metad.root}/etc/md.cf`, 'utf8').replace(/^#.*\n/gm, ''))
  })
}

t.test('several operands: each has its own answer, what works is done, the status tells', async (t) => {
  const said = metad.run('metaclear', ['d1', 'd3', 'd9', 'x/d0'])
  t.match(said, { status: 1, stdout: '' })
  const lines = ['d1: metadevice in use', 'd3: metadevice is open', 'd9: unit not set up', 'setname "x": no such set']
  t.equal(said.stderr, lines.map((l) => `metaclear: ${hostname()}: ${l}\n\n`).join(''))
  const stat = metad.run('metastat', ['-p', 'd9', 'd4'])
  t.match(stat, { status: 1, stdout: /^d4 2 1 / })
  t.match(metad.run('metasync', ['d4', 'd0']), { status: 255 })
})

t.test('absurd amounts', async (t) => {
  const before = await rig.snapshot()
  const many = metad.run('metainit', ['d9', '1', '5000', ...Array.from({ length: 5000 }, (_, i) => `/x${i}`)])
  t.match(many, { status: 1, stdout: '' })
  t.match(many.stderr, /: init: bad field words\n\n$/)
  const long = metad.run('metainit', ['d9', '1', '1', `/${'x/'.repeat(60_000)}`])
  t.match(long, { status: 1, stdout: '', stderr: /: init: bad field words\n\n$/ })
  const longest = Array.from({ length: 12 }, () => 'x'.repeat(100_000))
  t.match(metad.run('metaclear', longest), { status: 1, stdout: '', stderr: /request too long\n\n$/ })
  const strange = metad.run('metainit', ['d9\u001b[31m', '1', '1', rig.path('free1')])
  t.equal(strange.stderr, `metainit: ${hostname()}: d9?[31m: ${NAME}\n\n`, 'no control character reaches the terminal')
  t.match(metad.run('metainit', ['dé', '1', '1', rig.path('free1')]), { status: 1, stderr: `dé: ${NAME}` })
  t.equal(await rig.snapshot(), before)
})

t.test('a command without metad, or with a root that is none', async (t) => {
  for (const command of [
    'metainit -a',
    'metastat',
    'metaclear -a',
    'metattach d0',
    'metadetach d0 d1',
    'metaparam d0',
    'metahs -i',
  ])
    t.match(metad.run(command.split(' ')[0] ?? '', ['--root', rig.path('dir'), ...command.split(' ').slice(1)]), {
      status: 1,
      stdout: '',
      stderr: /: metad is not running \(no socket .*; start it with: metad --daemon\)\n\n$/,
    })
})

t.test('a root with no room for a socket, and an option that is none', async (t) => {
  const start = (...args: string[]): ReturnType<typeof spawnSync> =>
    spawnSync(process.execPath, [join(import.meta.dirname, '../../../cmd/metad.js'), ...args], { encoding: 'utf8' })
  const long = join(rig.path('dir'), 'x'.repeat(100))
  t.match(start('--root', long), { status: 1, stderr: /the path is too long for a socket in it \(107 bytes\)/ })
  t.notOk(existsSync(long))
  t.match(start('--nonsense'), { status: 1, stderr: /usage: metad/ })
  t.match(start('--root', metad.root), {
    status: 1,
    stderr: `another metad (pid ${metad.pid() ?? 0}) serves ${metad.root}`,
  })
})

t.test('metad is unharmed, the client of d3 undisturbed', async (t) => {
  t.equal((await rig.holder.read(0n, 4096)).error, 0)
  t.notMatch(metad.log(), /"level":(?:50|60)/)
  t.equal(existsSync('/mddb.0'), false)
})

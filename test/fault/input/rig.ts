/**
 * A real metad with metadevices of every shape, storage of every wrong sort beside them, and what of it
 * must not change when a command is refused.
 *
 * `d0` mirrors d1 and d2; `d3` is a stripe of two that a client holds open; `d4` a concatenation of two;
 * `d20` a mirror of d21 whose resync to d22 goes so slowly that it lasts for the whole test.
 */
import { execFileSync } from 'node:child_process'
import { linkSync, mkdirSync, readFileSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ask } from '../../../src/ctl/client.js'
import type { Request } from '../../../src/ctl/protocol.js'
import { type Metad, startMetad, type Test } from '../../tools/daemon.js'
import { NbdClient } from '../../tools/nbdclient.js'

export interface Rig {
  readonly metad: Metad
  /** The client that holds d3 open. */
  readonly holder: NbdClient
  /** Below disks/. */
  path(name: string): string
  /** What metastat -p, metadb, md.cf and mddb.cf say now: asked for as the commands ask. */
  snapshot(): Promise<string>
}

export const startRig = async (t: Test): Promise<Rig> => {
  // 16 MiB take a quarter of an hour.
  const metad = await startMetad(t, { conf: 'resync_bytes_per_second = 16384\nresync_buffer_blocks = 16\n' })
  const path = (name: string): string => join(metad.root, 'disks', name)
  for (const name of ['a1', 'a2', 's1', 's2', 'c1', 'c2', 'm1', 'm2', 'free1', 'free2', 'with blank', 'back\\'])
    metad.disk(name, 16)
  writeFileSync(path('tiny'), Buffer.alloc(511))
  writeFileSync(path('short'), '')
  truncateSync(path('short'), (1 << 20) - 512)
  writeFileSync(path('empty'), '')
  linkSync(path('a1'), path('hard'))
  symlinkSync(path('a1'), path('soft'))
  symlinkSync('loop', path('loop'))
  symlinkSync('gone', path('dangling'))
  mkdirSync(path('dir'))
  execFileSync('mkfifo', [path('fifo')])

  metad.must('metadb', ['-a', '-f', path('r1'), path('r2'), path('r3')])
  for (const [name, ...words] of [
    ['d1', '1', '1', path('a1')],
    ['d2', '1', '1', path('a2')],
    ['d0', '-m', 'd1', 'd2'],
    ['d3', '1', '2', path('s1'), path('s2'), '-i', '32k'],
    ['d4', '2', '1', path('c1'), '1', path('c2')],
    ['d21', '1', '1', path('m1')],
    ['d22', '1', '1', path('m2')],
    ['d20', '-m', 'd21'],
  ] as const)
    metad.must('metainit', [name, ...words])
  metad.must('metattach', ['d20', 'd22'])
  linkSync(path('r1'), path('hardreplica'))
  const holder = await NbdClient.open(metad.socket, { name: 'd3' })
  t.teardown(async () => holder.destroy())

  const answer = async (request: Request): Promise<unknown[]> => {
    const got: unknown[] = []
    const outcome = await ask(request, (reply) => void got.push(reply), {
      socketPath: join(metad.root, 'run/admin.sock'),
    })
    if (!outcome.ok) throw new Error(JSON.stringify(outcome.error))
    return got
  }
  return {
    metad,
    path,
    holder,
    snapshot: async () => {
      const [stat] = (await answer({ op: 'stat', probe: false, names: [] })) as {
        report: { units: { tab: string }[] }
      }[]
      const tab = stat?.report.units.map((u) => u.tab) ?? []
      const files = ['md.cf', 'mddb.cf'].map((f) => readFileSync(join(metad.root, 'etc', f), 'utf8'))
      return JSON.stringify([tab, await answer({ op: 'dbList' }), ...files], null, 1)
    },
  }
}

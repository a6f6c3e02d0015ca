/** Reports for the tests of the layouts: invented devices, every state that can be shown. */
import type {
  ComponentReport,
  MirrorReport,
  PoolReport,
  Raid5Report,
  StatReport,
  StripeReport,
} from '../../../src/msg/report.js'

export const NOON = new Date(2031, 2, 4, 12, 0, 0).getTime()

export const component = (device: string, more: Partial<ComponentReport> = {}): ComponentReport => ({
  device,
  startBlock: 0,
  hasReplica: false,
  state: 'Okay',
  changed: NOON,
  relocatable: true,
  hotSpare: null,
  ...more,
})

export const stripe = (
  name: string,
  devices: readonly ComponentReport[],
  more: Partial<StripeReport> = {},
): StripeReport => ({
  kind: 'stripe',
  name,
  parent: null,
  size: 204800,
  hotSparePool: null,
  unavailable: false,
  rows: [{ interlace: 1024, components: devices }],
  tab: `${name} 1 ${devices.length} ${devices.map((d) => d.device).join(' ')}`,
  ...more,
})

export const mirror = (name: string, more: Partial<MirrorReport> = {}): MirrorReport => ({
  kind: 'mirror',
  name,
  parent: null,
  size: 204800,
  submirrors: [],
  resync: null,
  pass: 1,
  read: 'roundrobin',
  write: 'parallel',
  tab: `${name} -m 1`,
  ...more,
})

export const pool = (name: string, spares: readonly (readonly [string, string, number])[]): PoolReport => ({
  kind: 'pool',
  name,
  parent: null,
  size: 0,
  spares: spares.map(([device, state, size]) => ({ device, state, size, changed: NOON, relocatable: true })),
  tab: [name, ...spares.map(([device]) => device)].join(' '),
})

export const raid5 = (
  name: string,
  devices: readonly ComponentReport[],
  more: Partial<Raid5Report> = {},
): Raid5Report => ({
  kind: 'raid5',
  name,
  parent: null,
  size: 409600,
  state: 'Okay',
  changed: NOON,
  invoke: null,
  work: null,
  hotSparePool: null,
  interlace: 1024,
  original: { size: 410624, columns: devices },
  attached: null,
  tab: `${name} -r ${devices.map((d) => d.device).join(' ')} -k -i 1024b`,
  ...more,
})

/** A mirror that resyncs its second side, a two-row concatenation, one of each beside them. */
export const busy: StatReport = {
  stale: false,
  units: [
    mirror('d50', {
      submirrors: [
        { slot: 0, name: 'd51', state: 'Okay', changed: NOON, invoke: null, offline: false },
        { slot: 2, name: 'd52', state: 'Resyncing', changed: NOON + 1000, invoke: null, offline: false },
      ],
      resync: { state: 'running', doneBlocks: 51300, totalBlocks: 204800 },
      tab: 'd50 -m d51 d52 1',
    }),
    stripe('d51', [component('/srv/a.img')], { parent: 'd50', tab: 'd51 1 1 /srv/a.img' }),
    stripe('d52', [component('/srv/b.img', { state: 'Resyncing', hotSpare: '/srv/s.img' })], {
      parent: 'd50',
      hotSparePool: 'hsp009',
      tab: 'd52 1 1 /srv/b.img -h hsp009',
    }),
    stripe('backup', [], {
      size: 12582912,
      rows: [
        { interlace: 64, components: [component('vdb', { hasReplica: true, startBlock: 8208 }), component('vdc')] },
        { interlace: 64, components: [component('c9t0d0s0', { relocatable: false, startBlock: 10176 })] },
      ],
      tab: 'backup 2 2 vdb vdc -i 64b \\\n\t 1 c9t0d0s0',
    }),
  ],
  show: ['d50', 'backup'],
  relocation: [
    { device: '/srv/a.img', relocatable: true, id: 'id1,file@1' },
    { device: 'vdb', relocatable: false, id: null },
  ],
}

/**
 * The engine without metad: one metadevice over given files, served as d0 until SIGTERM. What is left
 * between this and metad's numbers is metad's. --regions gives a mirror a dirty region log, kept nowhere. RAID5 takes
 * its columns as they are, without a replay; --missing leaves one out, --unjournalled its journal. With --regenerate or
 * --initialise every SIGUSR1 begins that job, whose end is a line: its milliseconds, its outcome.
 */
import { constants, fstatSync, openSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { blocks, type Blocks } from '../src/base/units.js'
import { takeSocketFd } from '../src/dataplane/handover.js'
import { loadDataPlane } from '../src/dataplane/native.js'
import { makeExportTable } from '../src/nbd/exports.js'
import { NbdListener } from '../src/nbd/listener.js'
import { PlanBuilder } from '../src/plan/builder.js'
import { encodePlan } from '../src/plan/encode.js'
import type { ComponentId, NodeId, OpenComponent, Plan } from '../src/plan/types.js'

const USAGE = `usage: node build/js/bench/engine.js --socket PATH [--direct] [--threads N] [--spin MICROS] [--interlace BLOCKS] [--regions BLOCKS]
         [--missing COLUMN] [--unjournalled] [--regenerate COLUMN | --initialise] stripe|concat|mirror|raid5 FILE...\n`
const MAX_REQUEST_BYTES = 32 << 20

/** Of a RAID5 column, 5 MiB: 10 slots of 1 MiB would be SVM's, less is a ring of ours that turns as often. */
const PREWRITE = blocks(10_240)

interface Shape {
  readonly interlace: Blocks
  readonly regions: Blocks
  /** RAID5: the column that is out of service. */
  readonly missing: number | undefined
  /** RAID5: columns that are written and not read. */
  readonly behind: readonly number[]
}

const planOf = (
  shape: string,
  components: readonly OpenComponent[],
  { interlace, regions, missing, behind }: Shape,
): Plan => {
  const plan = new PlanBuilder()
  const nodes = components.map((c, i) =>
    i === missing || behind.includes(i)
      ? plan.addComponent(c.component, blocks(0), c.size, { readable: false, writable: i !== missing, lastErred: 0 })
      : plan.addComponent(c.component, blocks(0), c.size),
  )
  const least = Math.min(...components.map((c) => c.size))
  const concat = (children: readonly NodeId[]): NodeId =>
    plan.addStripe(children.map((child) => ({ interlace, blocks: plan.sizeOf(child), children: [child] })))
  switch (shape) {
    case 'stripe': {
      const each = least - (least % interlace)
      plan.addStripe([{ interlace, blocks: blocks(each * nodes.length), children: nodes }])
      break
    }
    case 'concat':
      concat(nodes)
      break
    case 'mirror':
      plan.addMirror(
        nodes.map((node, slot) => ({ child: concat([node]), slot, readable: true, writable: true, stale: false })),
        blocks(least),
        'roundrobin',
        'parallel',
        regions,
      )
      break
    case 'raid5': {
      const lines = Math.floor((least - PREWRITE) / interlace)
      plan.addRaid5({
        blocks: blocks(lines * interlace * (nodes.length - 1)),
        interlace,
        lines,
        originals: nodes.length,
        serving: nodes.length,
        prewrite: PREWRITE,
        unit: 1,
        epoch: 1,
        replay: false,
        copied: null,
        columns: nodes,
      })
      break
    }
    default:
      throw new Error(USAGE)
  }
  return plan.finish({ generation: 1, labelled: false, readOnly: false })
}

const main = async (): Promise<void> => {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      socket: { type: 'string' },
      direct: { type: 'boolean' },
      threads: { type: 'string' },
      spin: { type: 'string' },
      interlace: { type: 'string' },
      regions: { type: 'string' },
      missing: { type: 'string' },
      unjournalled: { type: 'boolean' },
      regenerate: { type: 'string' },
      buffer: { type: 'string' },
      initialise: { type: 'boolean' },
    },
  })
  const [shape = '', ...files] = positionals
  if (values.socket === undefined || files.length === 0) throw new Error(USAGE)
  const direct = values.direct === true
  const components = files.map((file, i): OpenComponent => {
    const fd = openSync(file, constants.O_RDWR | (direct ? constants.O_DIRECT : 0))
    const size = blocks(Math.floor(fstatSync(fd).size / 512))
    return { component: i as ComponentId, fd, direct, align: 512, blockDevice: false, size, timeoutMillis: 0 }
  })
  const columns = files.map((_, i) => i)
  const behind = values.regenerate !== undefined ? [Number(values.regenerate)] : values.initialise ? columns : []
  const plan = planOf(shape, components, {
    behind,
    interlace: blocks(Number(values.interlace ?? 128)),
    regions: blocks(Number(values.regions ?? 0)),
    missing: values.missing === undefined ? undefined : Number(values.missing),
  })
  const engine = loadDataPlane()
  let begun = 0
  engine.start(
    {
      threads: Number(values.threads ?? 2),
      queueDepth: 128,
      maxRequestBytes: MAX_REQUEST_BYTES,
      spinMicros: Number(values.spin ?? 20),
      regionSweepMillis: 10_000,
      raid5CacheBytes: 64 << 20,
      raid5Journal: values.unjournalled !== true,
    },
    () => {
      for (const e of engine.drain(1024))
        if (e.kind === 'regionsDirty' || e.kind === 'regionsIdle') engine.marked(e.device, e.ticket, true)
        else if (e.kind === 'resyncEnded')
          process.stdout.write(`${Math.round(performance.now() - begun)} ${e.outcome}\n`)
    },
  )
  await engine.install(0, encodePlan(plan), components, null)
  const root = plan.nodes.at(-1)
  const sizeBytes = BigInt(root?.blocks ?? 0) * 512n
  const unit = {
    name: 'd0',
    device: 0,
    sizeBytes,
    readOnly: false,
    description: shape,
    preferredBlockBytes: 0,
    trims: true,
  }
  const listener = new NbdListener({
    exports: makeExportTable(() => [unit], { maxRequestBytes: MAX_REQUEST_BYTES }),
    active: () => 0,
    handover: (socket, to, residual) => {
      takeSocketFd(socket, (fd) => engine.adopt(fd, to.export.device, to.terms, residual))
    },
    log: () => undefined,
  })
  process.on('SIGUSR1', () => {
    begun = performance.now()
    engine.raid5Job(0, {
      job: 1,
      kind: values.initialise === true ? 'initialise' : 'regenerate',
      columns: behind,
      repair: false,
      from: blocks(0),
      bufferBlocks: Number(values.buffer ?? 1024),
      bytesPerSecond: 0,
      checkpointMillis: 10_000,
    })
  })
  await listener.listenUnix(values.socket)
  process.once('SIGTERM', () => {
    void listener
      .close()
      .then(() => engine.stop())
      .then(() => process.exit(0))
  })
}

await main().catch((e: unknown) => {
  process.stderr.write(`${e instanceof Error ? e.message : String(e)}\n`)
  process.exit(1)
})

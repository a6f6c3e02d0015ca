/**
 * docs/adding-a-kind.md, followed to the letter: a copy of the sources gets a toy kind by changing the files
 * of its table and no other. First only the unions grow, and the compiler must complain in files of the table
 * alone: then the table is complete. Then everything is done, compiles, and the toy is parsed, built, recorded,
 * compiled into a plan and shown.
 */
import { spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { read, TOP } from '../tree/sources.js'

t.setTimeout(240_000)

const MOST = 10
const table = read('docs/adding-a-kind.md')
  .split('\n')
  .flatMap((line) => {
    const row = /^\| *(\d+) *\|([^|]*)\|/.exec(line)
    return row === null
      ? []
      : [{ number: Number(row[1]), files: [...(row[2] ?? '').matchAll(/`([^`]+)`/g)].map((m) => m[1] ?? '') }]
  })
const listed = table.flatMap((row) => row.files).map((f) => f.replace('raid', 'toy'))

/** A copy of the sources, changed file by file. */
const workshop = () => {
  const dir = mkdtempSync(join(tmpdir(), 'kind-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  for (const name of ['src', 'cmd']) cpSync(join(TOP, name), join(dir, name), { recursive: true })
  cpSync(join(TOP, 'package.json'), join(dir, 'package.json'))
  symlinkSync(join(TOP, 'node_modules'), join(dir, 'node_modules'))
  const config = JSON.parse(read('tsconfig.json')) as { compilerOptions: Record<string, unknown> }
  const options = {
    ...config.compilerOptions,
    outDir: 'out',
    incremental: false,
    tsBuildInfoFile: undefined,
    sourceMap: false,
  }
  writeFileSync(
    join(dir, 'tsconfig.json'),
    JSON.stringify({ compilerOptions: options, include: ['src', 'cmd', 'drive.ts'] }),
  )
  const touched = new Set<string>()
  const edit = (file: string, ...changes: readonly (readonly [RegExp, string])[]): void => {
    let text = readFileSync(join(dir, file), 'utf8')
    for (const [at, put] of changes) {
      if (!at.test(text)) throw new Error(`${file}: nothing matches ${String(at)}`)
      text = text.replace(at, put)
    }
    writeFileSync(join(dir, file), text)
    touched.add(file)
  }
  return {
    dir,
    touched,
    edit,
    create: (file: string, text: string): void => {
      writeFileSync(join(dir, file), text)
      touched.add(file)
    },
    /** What the compiler says. */
    compile: (): string => {
      const ran = spawnSync(process.execPath, [join(TOP, 'node_modules/typescript/bin/tsc'), '-p', '.'], {
        cwd: dir,
        encoding: 'utf8',
      })
      return ran.stdout
    },
  }
}

/** Steps 1, 2 and the report: the unions have one more member. */
const unions = ({ edit }: ReturnType<typeof workshop>): void => {
  edit('src/meta/types.ts', [
    /^export type Metadevice = /m,
    `export interface ToyUnit {
  readonly kind: 'toy'
  readonly name: UnitName
  readonly minor: number
  readonly component: Component
  readonly geometry: Geometry
  readonly labelled: boolean
  readonly blocks: Blocks
}
export type Metadevice = ToyUnit | `,
  ])
  edit('src/meta/kind.ts', [
    /^export type Definition =/m,
    `export interface ToyDefinition {
  readonly kind: 'toy'
  readonly name: UnitName
  readonly component: string
}
export type Definition = ToyDefinition |`,
  ])
  edit('src/msg/report.ts', [
    /^export type UnitReport =/m,
    `export interface ToyReport {
  readonly kind: 'toy'
  readonly name: string
  readonly parent: string | null
  readonly size: number
  readonly device: string
  readonly tab: string
}
export type UnitReport = ToyReport |`,
  ])
}

/** A case in the switch of a function, before its default. */
const inSwitchOf = (name: string, put: string): readonly [RegExp, string] => [
  new RegExp(`(const ${name} = [^]*?)(\\n *default:)`),
  `$1\n    case 'toy':\n      ${put}$2`,
]

t.test('the table: at most ten steps, every file of it exists', async (t) => {
  t.ok(table.length <= MOST, `${table.length} steps`)
  t.same(
    table.map((row) => row.number),
    table.map((_, i) => i + 1),
  )
  const there = listed.filter((f) => !f.includes('toy'))
  for (const f of there) t.ok(read(f).length > 0, f)
})

t.test('with one more member of the unions the compiler complains in the files of the table only', async (t) => {
  const shop = workshop()
  unions(shop)
  const complaints = shop.compile()
  const files = new Set([...complaints.matchAll(/^(\S+?)\(\d+,\d+\): error/gm)].map((m) => m[1] ?? ''))
  t.ok(files.size >= 4, `it does complain: ${[...files].join(' ')}`)
  t.same(
    // These two only read the registry, and are content when it has the kind.
    [...files].filter((f) => !listed.includes(f) && !/KINDS|index type/.test(complaintsOf(complaints, f))),
    [],
    complaints,
  )
})

const complaintsOf = (all: string, file: string): string =>
  all
    .split('\n')
    .filter((l) => l.startsWith(`${file}(`))
    .join('\n')

t.test('the table followed', async (t) => {
  const shop = workshop()
  unions(shop)
  const { edit } = shop
  shop.create('src/meta/toy.ts', read('test/fixtures/kind/toy.txt'))
  edit(
    'src/meta/kinds.ts',
    [/const DEVICES = \{/, 'const DEVICES = { toy,'],
    [/^import \{ stripe \}/m, "import { toy } from './toy.js'\nimport { stripe }"],
  )
  edit(
    'src/meta/tree.ts',
    inSwitchOf('childrenOf', 'return []'),
    inSwitchOf('ownComponents', 'return [unit.component]'),
    inSwitchOf('usedSlices', 'return [{ unit: unit.name, slice: unit.component, spare: false }]'),
    [/(KIND_ORDER[^=]*= \{)/, '$1 toy: 9,'],
  )
  edit(
    'src/meta/tab.ts',
    [/^export type TabType =/m, "export type TabType = 'toy' |"],
    [/case '-m':/, "case '-y':\n      return 'toy'\n    case '-m':"],
  )
  edit('src/msg/report.ts', [/KIND_TITLES = \{/, "KIND_TITLES = {\n  toy: 'Toy',"])
  edit(
    'src/cli/stat-long.ts',
    inSwitchOf('unit', "return [`${u.name}: Toy`, `    Size: ${u.size} blocks`, `    ${u.device}`, '']"),
  )
  edit('src/cli/stat-short.ts', inSwitchOf('entry', "return [line('y', [u.device])]"))
  writeFileSync(join(shop.dir, 'drive.ts'), read('test/fixtures/kind/drive.txt'))
  t.equal(shop.compile(), '', 'it compiles')
  const outside = [...shop.touched].filter((f) => !listed.includes(f))
  t.same(outside, [], 'no other file was needed')
  t.ok(shop.touched.size + 1 <= MOST, `${shop.touched.size} files and a test`)

  const drive = spawnSync(process.execPath, [join(shop.dir, 'out/drive.js')], { encoding: 'utf8' })
  t.equal(drive.stderr, '')
  t.same(JSON.parse(drive.stdout || '{}'), {
    changes: ['d5: Toy is setup\n'],
    refused: ['/disks/a: has appeared more than once in the specification of d5'],
    same: true,
    unread: [],
    used: ['d5 /disks/a'],
    plan: [
      'generation 1',
      'node 0 component 7 start 0 blocks 4096 readable writable',
      'node 1 stripe blocks 4096',
      '  row interlace 16 blocks 4096 children 0',
      '',
    ].join('\n'),
    long: 'd5: Toy\n    Size: 4096 blocks\n    /disks/a\n\n',
    concise: 'd5               y  2.0MB /disks/a\n',
    tab: 'd5 -y /disks/a\n',
  })
})

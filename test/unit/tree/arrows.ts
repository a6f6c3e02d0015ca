/**
 * The arrows allowed between folders, and how a file's own arrows are read. What is not listed is
 * forbidden; `base` may be imported by all, a folder always by itself.
 */
import { join } from 'node:path'

/** `folder:types` allows `import type` only. */
const MAY: Readonly<Record<string, readonly string[]>> = {
  'src/base': [],
  'src/msg': [],
  'src/plan': [],
  'src/meta': ['src/plan', 'src/msg'],
  'src/dataplane': ['src/plan'],
  'src/db': ['src/meta:types', 'src/msg'],
  'src/nbd': ['src/dataplane:types', 'src/msg'],
  'src/ctl': ['src/msg'],
  'src/cli': ['src/ctl', 'src/msg'],
  'src/sys': ['src/msg', 'src/dataplane', 'src/meta:types'],
  'src/resync': ['src/plan', 'src/msg', 'src/meta:types', 'src/dataplane:types'],
  'src/daemon': [
    'src/ctl',
    'src/meta',
    'src/db',
    'src/dataplane',
    'src/nbd',
    'src/resync',
    'src/sys',
    'src/msg',
    'src/plan',
  ],
  cmd: ['src/cli', 'src/msg'],
  'cmd/metad.ts': ['src/daemon'],
  'native/core': [],
  'native/plan': ['native/core'],
  'native/io': ['native/core', 'native/plan'],
  'native/md': ['native/io', 'native/core', 'native/plan'],
  'native/nbd': ['native/md', 'native/core', 'native/io'],
  'native/engine': ['native/nbd', 'native/md', 'native/io', 'native/core', 'native/plan'],
  'native/addon': ['native/engine', 'native/nbd', 'native/md', 'native/io', 'native/core', 'native/plan'],
}

/** Tests, benchmarks and fuzzers may look everywhere. */
const FREE = /^(?:test|bench|scripts)\/|^native\/(?:test|fuzz|bench)\/|_test\.cc$|_fuzz\.cc$/

export interface Arrow {
  readonly to: string
  readonly typesOnly: boolean
  readonly line: number
}

const folderOf = (file: string): string => {
  const [a = '', b = ''] = file.split('/')
  return a === 'src' || a === 'native' ? `${a}/${b}` : a
}

const lineAt = (text: string, index: number): number => text.slice(0, index).split('\n').length

/** Relative imports of a TypeScript file, as paths from the top. */
export const importsOf = (file: string, text: string): Arrow[] => {
  const arrows: Arrow[] = []
  const statement = /^[ \t]*(?:import|export)\b([^'"();]*?)(?:\bfrom\s*)?['"](\.[^'"]+)['"]/gm
  for (const m of text.matchAll(statement)) {
    const names = m[1] ?? ''
    const braces = /\{([^}]*)\}/.exec(names)?.[1]
    const each = braces?.split(',').filter((n) => n.trim() !== '') ?? []
    const inline = /^\s*\{/.test(names) && each.length > 0 && each.every((n) => /^\s*type\s/.test(n))
    const to = join(file, '..', m[2] ?? '').replace(/\.js$/, '.ts')
    arrows.push({ to, typesOnly: /^\s*type\b/.test(names) || inline, line: lineAt(text, m.index) })
  }
  for (const m of text.matchAll(/\bimport\(\s*['"](\.[^'"]+)['"]/g)) {
    const to = join(file, '..', m[1] ?? '').replace(/\.js$/, '.ts')
    arrows.push({ to, typesOnly: false, line: lineAt(text, m.index) })
  }
  return arrows
}

/** Quoted includes of a C++ file: relative to native/, or to the file itself when without a folder. */
export const includesOf = (file: string, text: string): Arrow[] =>
  [...text.matchAll(/^[ \t]*#[ \t]*include[ \t]*"([^"]+)"/gm)].map((m) => {
    const path = m[1] ?? ''
    const to = path.startsWith('.') || !path.includes('/') ? join(file, '..', path) : join('native', path)
    return { to, typesOnly: false, line: lineAt(text, m.index) }
  })

/** @returns one sentence per arrow of `file` that is not allowed. */
export const wrongArrows = (file: string, text: string): string[] => {
  if (FREE.test(file)) return []
  const cpp = /\.(?:cc|h)$/.test(file)
  const wrong: string[] = []
  const from = folderOf(file)
  const may = [...(MAY[from] ?? []), ...(MAY[file] ?? [])]
  if (MAY[from] === undefined && /^(?:src|native|cmd)\//.test(file) && file.split('/').length > 2) {
    wrong.push(`${file}: ${from} is a folder nobody gave arrows to`)
  }
  for (const a of cpp ? includesOf(file, text) : importsOf(file, text)) {
    const to = folderOf(a.to)
    const own = to === from || (!cpp && to === 'src/base')
    const allowed = own || may.includes(to) || (a.typesOnly && may.includes(`${to}:types`))
    if (!allowed) wrong.push(`${file}:${a.line}: ${from} may not use ${a.typesOnly ? 'types of ' : ''}${to}`)
  }
  if (cpp && from !== 'native/addon' && /#\s*include\s*[<"](?:napi|node_api|js_native_api|uv)\.h/.test(text)) {
    wrong.push(`${file}: only native/addon may include Node's headers`)
  }
  if (!cpp && from !== 'src/dataplane' && from !== 'bench' && /\bmetadisk\.node\b|\bprocess\.dlopen\b/.test(text)) {
    wrong.push(`${file}: only src/dataplane may load the addon`)
  }
  return wrong
}

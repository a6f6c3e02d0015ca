/**
 * What README says of installing: `npm install -g` puts every command and page where the shell finds them, and
 * they work against a metad started from there; and the package as it would be published holds all it needs.
 * A checkout that was never built is built by the same command, which takes minutes and is not done here.
 */
import { spawnSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { missing } from '../tools/foreign.js'
import { read, TOP } from '../unit/tree/sources.js'

t.setTimeout(240_000)

const { bin, version } = JSON.parse(read('package.json')) as { bin: Record<string, string>; version: string }
const scratch = (t: Test): string => {
  const dir = mkdtempSync(join(tmpdir(), 'inst-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 }))
  return dir
}

interface Ran {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}
/** The words as a user of the installed package types them: nothing of this checkout is on the PATH. */
const shell = (dir: string, path: string, line: string): Ran => {
  const env = {
    PATH: `${path}:${dirname(process.execPath)}:/usr/bin:/bin`,
    HOME: dir,
    METADISK_ROOT: join(dir, 'root'),
    npm_config_prefix: join(dir, 'prefix'),
    npm_config_cache: join(dir, 'cache'),
    npm_config_offline: 'true',
    npm_config_update_notifier: 'false',
  }
  const ran = spawnSync('/bin/sh', ['-c', line], { cwd: dir, env, encoding: 'utf8', input: '', timeout: 120_000 })
  return { status: ran.status, stdout: ran.stdout, stderr: ran.stderr }
}

/** Every command is found and answers. */
const answers = (t: Test, dir: string, path: string): void => {
  const names = Object.keys(bin)
  const ran = shell(dir, path, `for c in ${names.join(' ')}; do command -v $c && $c --version || exit; done`)
  t.equal(ran.status, 0, ran.stderr)
  t.same(
    ran.stdout.trim().split('\n'),
    names.flatMap((name) => [
      join(path, name),
      name === 'metad' ? `metad ${version}` : `${name} (metadisk) ${version}`,
    ]),
  )
}

/** The same, and a metad from the same place remembers and shows a mirror. */
const works = (t: Test, dir: string, path: string): void => {
  const run = (line: string): string => {
    const ran = shell(dir, path, line)
    t.equal(ran.status, 0, `${line}${ran.status === 0 ? '' : `: ${ran.stdout}${ran.stderr}`}`)
    return ran.stdout
  }
  answers(t, dir, path)
  mkdirSync(join(dir, 'root'))
  for (const name of ['one', 'two']) {
    writeFileSync(join(dir, name), '')
    truncateSync(join(dir, name), 4 << 20)
  }
  run('metad --daemon')
  t.teardown(() => void shell(dir, path, 'kill $(cat root/run/metad.lock)'))
  const before = shell(dir, path, 'metastat -p')
  t.same([before.status, before.stdout], [1, ''])
  t.match(before.stderr, /^metastat: \S+: there are no existing databases\n/)
  run('metadb -a -f r1 r2 r3')
  run('metainit d1 1 1 one')
  run('metainit d2 1 1 two')
  t.equal(run('metainit d0 -m d1'), 'd0: Mirror is setup\n')
  run('metaparam -r first d0')
  t.match(run('metastat -p'), /^d0 -m \/dev\/md\/rdsk\/d1 -r 1\n/)
  run('metaclear -r d0')
  t.equal(run('metastat -p').split('\n').length, 2)
  const pid = Number(readFileSync(join(dir, 'root/run/metad.lock'), 'utf8'))
  t.equal(readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').includes(join(path, 'metad')), true, 'this metad')
  run(`kill ${pid}; for i in $(seq 200); do [ -d /proc/${pid} ] || exit 0; sleep 0.1; done; exit 1`)
}

t.test('npm install -g . from a built checkout', { skip: missing('npm') }, async (t) => {
  const dir = scratch(t)
  const installed = shell(dir, '', `npm install -g ${TOP}`)
  t.equal(installed.status, 0, installed.stderr)
  works(t, dir, join(dir, 'prefix/bin'))
  const pages = readdirSync(join(TOP, 'man'))
  for (const page of pages) t.ok(existsSync(join(dir, 'prefix/share/man', `man${page.slice(-1)}`, page)), `man ${page}`)
  const completion = join(shell(dir, '', 'npm root -g').stdout.trim(), 'metadisk/completion/metadisk.bash')
  t.ok(existsSync(completion), 'the completion is where README says')

  t.equal(shell(dir, '', 'npm uninstall -g metadisk').status, 0)
  t.notOk(existsSync(join(dir, 'prefix/bin/metastat')))
  t.ok(existsSync(join(TOP, 'bin/metastat')), 'the checkout keeps its own')
})

t.test('through a symbolic link to the checkout, into a prefix of its own', { skip: missing('npm') }, async (t) => {
  const dir = scratch(t)
  symlinkSync(TOP, join(dir, 'link'))
  const installed = shell(dir, '', `cd link && npm install -g . --prefix ${join(dir, 'elsewhere')}`)
  t.equal(installed.status, 0, installed.stderr)
  answers(t, dir, join(dir, 'elsewhere/bin'))
})

t.test('the package holds what it needs, and nothing of the tests', { skip: missing('npm', 'tar') }, async (t) => {
  const dir = scratch(t)
  const packed = shell(dir, '', `npm pack --silent --pack-destination ${dir} ${TOP}`)
  t.equal(packed.status, 0, packed.stderr)
  const module = join(dir, 'node_modules/metadisk')
  mkdirSync(module, { recursive: true })
  t.equal(shell(dir, '', `tar -xzf metadisk-${version}.tgz -C ${module} --strip-components=1`).status, 0)
  t.same(readdirSync(join(module, 'build')).sort(), ['cli', 'js', 'native'], 'commands, daemon and engine')
  t.notOk(existsSync(join(module, 'build/js/test')))
  // Its dependencies as npm would put them beside it; the registry is not asked.
  const { dependencies } = JSON.parse(readFileSync(join(module, 'package.json'), 'utf8')) as { dependencies: object }
  for (const name of readdirSync(join(TOP, 'node_modules')))
    if (!name.startsWith('.')) symlinkSync(join(TOP, 'node_modules', name), join(dir, 'node_modules', name))
  t.ok(Object.keys(dependencies).every((name) => existsSync(join(dir, 'node_modules', name))))
  const path = join(dir, 'bin')
  mkdirSync(path)
  for (const [name, file] of Object.entries(bin)) symlinkSync(join(module, file), join(path, name))
  works(t, dir, path)
  cpSync(join(module, 'etc'), join(dir, 'etc'), { recursive: true })
  t.ok(existsSync(join(dir, 'etc/md.tab')), 'the examples are there')
})

/**
 * /dev/md/dsk/dN and /dev/md/rdsk/dN. There is no kernel device behind a metadevice, so a link's text is
 * the NBD URI of the export: `readlink` gives what every NBD client takes, and whoever opens the link
 * itself gets ENOENT, for reading and for writing, because a URI is no path that exists.
 *
 * Invariants
 * - A link is there exactly while its export is served; a dead metad's links are swept at the next start.
 * - Only links of ours (an nbd+unix text) are ever replaced or removed. Anything else that has the name is
 *   left alone and reported.
 * - Links are a convenience: no failure here fails a command or a start.
 */
import { mkdir, readdir, readlink, rename, rm, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { strerror } from '../msg/strerror.js'
import { errnoOf } from './errno.js'

const OURS = /^nbd\+unix:\/\/\//
const KINDS = ['dsk', 'rdsk'] as const
type Kind = (typeof KINDS)[number]

/** `dsk` is the export d0, `rdsk` its raw twin. Everything but `/` that a URI gives a meaning is escaped. */
export const exportUri = (kind: Kind, name: string, socket: string): string =>
  `nbd+unix:///${kind === 'rdsk' ? 'rdsk/' : ''}${name}?socket=${encodeURIComponent(socket).replaceAll('%2F', '/')}`

export class DeviceLinks {
  readonly #dev: string
  readonly #socket: string
  readonly #complain: (text: string) => void

  /** @param dev /dev/md or its twin under a root. @param socket the NBD unix socket, absolute. */
  constructor(dev: string, socket: string, complain: (text: string) => void) {
    this.#dev = dev
    this.#socket = socket
    this.#complain = complain
  }

  /** Removes every link of ours, so that nothing says an export exists before it does. */
  async clear(): Promise<void> {
    for (const kind of KINDS)
      await this.#guarded(join(this.#dev, kind), async (dir) => {
        const names = await readdir(dir).catch((e: unknown) => {
          if (errnoOf(e) === 'ENOENT') return []
          throw e
        })
        for (const name of names) if (await this.#isOurs(join(dir, name))) await rm(join(dir, name), { force: true })
      })
  }

  /** Another metadevice is served. A link that is there already is replaced in one step. */
  async add(name: string): Promise<void> {
    for (const kind of KINDS)
      await this.#guarded(join(this.#dev, kind, name), async (path) => {
        await mkdir(join(this.#dev, kind), { recursive: true, mode: 0o755 })
        const uri = exportUri(kind, name, this.#socket)
        try {
          await symlink(uri, path)
          return
        } catch (e) {
          if (errnoOf(e) !== 'EEXIST') throw e
        }
        if (!(await this.#isOurs(path))) {
          this.#complain(`${path}: exists and is not a link of metad; left alone`)
          return
        }
        // No metadevice can be called like this: names begin with a letter.
        const fresh = join(this.#dev, kind, `.${name}.new`)
        await rm(fresh, { force: true })
        await symlink(uri, fresh)
        await rename(fresh, path)
      })
  }

  async remove(name: string): Promise<void> {
    for (const kind of KINDS)
      await this.#guarded(join(this.#dev, kind, name), async (path) => {
        if (await this.#isOurs(path)) await rm(path, { force: true })
      })
  }

  async #isOurs(path: string): Promise<boolean> {
    const text = await readlink(path).catch((e: unknown) => {
      // EINVAL: no symbolic link.
      if (errnoOf(e) === 'EINVAL' || errnoOf(e) === 'ENOENT') return ''
      throw e
    })
    return OURS.test(text)
  }

  async #guarded(path: string, work: (path: string) => Promise<void>): Promise<void> {
    try {
      await work(path)
    } catch (e) {
      const code = errnoOf(e)
      if (code === undefined) throw e
      this.#complain(`${path}: ${strerror(code)}`)
    }
  }
}

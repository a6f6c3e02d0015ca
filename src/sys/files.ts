/** Files that must be whole after a crash: written beside, synced, renamed, and the directory synced. */
import { open, rename, stat } from 'node:fs/promises'
import { dirname } from 'node:path'

/** Keeps mode and owner of a file that is there (commands.md 6.2). */
export const writeAtomically = async (path: string, text: string): Promise<void> => {
  const temporary = `${path}.new`
  const old = await stat(path).catch(() => undefined)
  const file = await open(temporary, 'w', old === undefined ? 0o644 : old.mode & 0o777)
  try {
    await file.writeFile(text)
    if (old !== undefined && process.getuid?.() === 0) await file.chown(old.uid, old.gid)
    await file.sync()
  } finally {
    await file.close()
  }
  await rename(temporary, path)
  const directory = await open(dirname(path), 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}

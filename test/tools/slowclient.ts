/** A client that hangs with pages in its socket that it was lent. For metad with one thread. */
import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../../bench/lib/process.js'
import type { Metad } from './daemon.js'
import { type Answer, NbdClient } from './nbdclient.js'

const MIB = 1 << 20

const check = (right: boolean): void => {
  if (!right) throw new Error('a prompt client gets its answers')
}

export interface Slow {
  readonly client: NbdClient
  readonly answer: Promise<Answer>
}

/** A client that has asked for the first MiB of `name`, which is `content`, and does not read. */
export const hang = async (metad: Metad, name: string, content: Buffer): Promise<Slow> => {
  const prompt = await NbdClient.open(metad.socket, { name })
  check((await prompt.write(0n, content)).error === 0)
  check((await prompt.flush()).error === 0)
  await until('the data is in place, and read', async () => (await prompt.read(0n, MIB)).data.equals(content))
  // RAID5 puts it into place after the flush.
  await sleep(500)
  const client = await NbdClient.open(metad.socket, { name })
  client.socket.pause()
  const answer = client.read(0n, MIB)
  answer.catch(() => undefined)
  // Served by the same thread, after the other's request is in the socket.
  for (let i = 0; i < 20; i++) check((await prompt.read(0n, 512)).error === 0)
  prompt.destroy()
  await prompt.closed
  return { client, answer }
}

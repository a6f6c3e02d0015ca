/**
 * NBD clients on their way from the handshake into the engine. A client that was let through counts from
 * that moment on: while its metadevice is being opened, and then until the engine reports its end.
 * Its socket is silent until the engine has it: what it sends meanwhile waits in the kernel.
 */
import type { Socket } from 'node:net'
import { takeSocketFd } from '../dataplane/handover.js'
import { errorText } from '../msg/errors.js'
import type { Handover } from '../nbd/types.js'
import type { Logger } from './log.js'
import type { System } from './system.js'

export class Clients {
  readonly #system: System
  readonly #log: Logger
  readonly #arriving = new Set<Promise<void>>()

  constructor(system: System, log: Logger) {
    this.#system = system
    this.#log = log
  }

  /** Clients that hold a place: arriving or in transmission. */
  count(): number {
    return this.#arriving.size + this.#system.parts.metadevices.clients()
  }

  /** Owns the socket from here on. */
  take(socket: Socket, to: Handover, residual: Buffer): void {
    const arrival = this.#admit(socket, to, residual)
      .catch((e: unknown) => {
        this.#log.error(e, 'connection not handed over')
        socket.destroy()
      })
      .finally(() => this.#arriving.delete(arrival))
    this.#arriving.add(arrival)
  }

  /** Resolves when everybody who was let through is in the engine or gone; nobody may arrive meanwhile. */
  async arrived(): Promise<void> {
    await Promise.all(this.#arriving)
  }

  async #admit(socket: Socket, to: Handover, residual: Buffer): Promise<void> {
    const admitted = await this.#system.admit(to.export.device, to.terms.readOnly)
    if (!admitted.ok) {
      this.#log.warn({ export: to.export.name }, `client refused: ${errorText(admitted.error)}`)
      socket.destroy()
      return
    }
    try {
      takeSocketFd(socket, (fd) => admitted.value.enter(fd, to.terms, residual))
    } finally {
      admitted.value.over()
    }
  }
}

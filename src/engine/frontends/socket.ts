import {mkdir} from 'node:fs/promises'
import {dirname} from 'node:path'
import type {Address} from '../../lib/address.js'
import {LonghornError} from '../../lib/errors.js'
import {checkFree} from '../../lib/net/check-free.js'
import {Listener} from '../../lib/net/listener.js'
import {closeFd} from '../../lib/net/socket-calls.js'
import {FRAME} from '../../protocol/frame.js'
import {FrameServerConnection} from '../../protocol/frame-server.js'
import type {Frontend, FrontendKind, FrontendOptions} from './frontend.js'

const MAX_CONNECTIONS = 64
const POLL_MS = 10

/** The data protocol on a unix socket: what liblonghorn speaks, and with it upstream's iSCSI target. */
export const socketFrontend: FrontendKind = {
  name: 'socket',
  summary: 'Longhorn data protocol on a unix socket',
  checkFree: async (volume, listen) => checkFree(addressOf(volume, listen)),
  open: options => SocketFrontend.open(options),
}

class SocketFrontend implements Frontend {
  readonly endpoint: string
  readonly #listener: Listener
  readonly #connections: Set<FrameServerConnection>
  #closed: Promise<void> | undefined

  private constructor(listener: Listener, path: string, connections: Set<FrameServerConnection>) {
    this.#listener = listener
    this.endpoint = path
    this.#connections = connections
  }

  static async open({volume, device, listen, log}: FrontendOptions): Promise<Frontend> {
    const address = addressOf(volume, listen)
    await mkdir(dirname(address.path), {recursive: true})
    const connections = new Set<FrameServerConnection>()
    let accepted = 0
    const listener = await Listener.open(address, fd => {
      if (connections.size >= MAX_CONNECTIONS) {
        closeFd(fd)
        return
      }
      const peer = `initiator ${++accepted}`
      const connection = new FrameServerConnection(fd, {
        device,
        noSpaceType: FRAME.ENOSPC,
        peer,
        onClose: (closed, reason) => {
          connections.delete(closed)
          log.info({peer, reason: reason?.message}, 'disconnected')
        },
      })
      connections.add(connection)
      log.info({peer}, 'connected')
    })
    return new SocketFrontend(listener, address.path, connections)
  }

  close(graceMs = 0): Promise<void> {
    this.#closed ??= this.#close(graceMs)
    return this.#closed
  }

  async #close(graceMs: number): Promise<void> {
    await this.#listener.close()
    const deadline = performance.now() + graceMs
    for (const connection of this.#connections) connection.stopReading()
    while (performance.now() < deadline && [...this.#connections].some(isBusy)) await delay(POLL_MS)
    for (const connection of [...this.#connections]) connection.close()
  }
}

function addressOf(volume: string, listen: Address = {kind: 'unix', path: `/var/run/longhorn-${volume}.sock`}): Address & {kind: 'unix'} {
  if (listen.kind !== 'unix') throw new LonghornError('USAGE', 'frontend socket listens on a unix socket: expected unix:/path')
  return listen
}

function isBusy(connection: FrameServerConnection): boolean {
  return connection.requestsInFlight > 0 || connection.stream.output.pending
}

function delay(ms: number): Promise<void> {
  return new Promise(resolve => {
    setTimeout(resolve, ms)
  })
}

import {mkdir} from 'node:fs/promises'
import {dirname} from 'node:path'
import type {Address} from '../../lib/address.js'
import {LonghornError} from '../../lib/errors.js'
import type {Log} from '../../lib/log.js'
import {checkFree} from '../../lib/net/check-free.js'
import {Listener} from '../../lib/net/listener.js'
import {closeFd} from '../../lib/net/socket-calls.js'
import type {BlockDevice} from '../../protocol/block-device.js'
import {FRAME} from '../../protocol/frame.js'
import {FrameServerConnection, type FrameServerState} from '../../protocol/frame-server.js'
import type {Frontend, FrontendHandover, FrontendKind, FrontendOptions, ParkedFrontend} from './frontend.js'
import {waitQuiet} from './quiet.js'

const MAX_CONNECTIONS = 64
const POLL_MS = 10

/** The data protocol on a unix socket: what liblonghorn speaks, and with it upstream's iSCSI target. */
export const socketFrontend: FrontendKind = {
  name: 'socket',
  checkFree: async (volume, listen) => checkFree(addressOf(volume, listen)),
  open: options => SocketFrontend.open(options),
  adopt: async (options, from) => () => SocketFrontend.adopt(options, from),
}

/** What another process needs to go on: descriptors of the listening socket and of each connection. Plain JSON. */
interface SocketState {
  readonly path: string
  readonly connections: readonly FrameServerState[]
}

class SocketFrontend implements Frontend {
  readonly endpoint: string
  readonly #device: BlockDevice
  readonly #log: Log
  readonly #connections = new Set<FrameServerConnection>()
  #listener: Listener | undefined
  #accepted = 0
  #closed: Promise<void> | undefined

  private constructor(path: string, {device, log}: FrontendOptions) {
    this.endpoint = path
    this.#device = device
    this.#log = log
  }

  static async open(options: FrontendOptions): Promise<Frontend> {
    const address = addressOf(options.volume, options.listen)
    await mkdir(dirname(address.path), {recursive: true})
    const frontend = new SocketFrontend(address.path, options)
    frontend.#listener = await Listener.open(address, fd => frontend.#accept(fd))
    return frontend
  }

  static adopt(options: FrontendOptions, {state, fds}: FrontendHandover): Frontend {
    const {path, connections} = state as SocketState
    const frontend = new SocketFrontend(path, options)
    const [listening, ...sockets] = fds as [number, ...number[]]
    frontend.#listener = Listener.adopt(listening, {kind: 'unix', path}, fd => frontend.#accept(fd))
    connections.forEach((connection, index) => frontend.#add(sockets[index]!, connection))
    return frontend
  }

  #accept(fd: number): void {
    if (this.#connections.size >= MAX_CONNECTIONS) closeFd(fd)
    else this.#add(fd)
  }

  #add(fd: number, from?: FrameServerState): void {
    const peer = `initiator ${++this.#accepted}`
    const onClose = (closed: FrameServerConnection, reason: Error | undefined): void => {
      this.#connections.delete(closed)
      this.#log.info({peer, reason: reason?.message}, 'disconnected')
    }
    this.#connections.add(new FrameServerConnection(fd, {device: this.#device, noSpaceType: FRAME.ENOSPC, peer, onClose}, from))
    this.#log.info({peer}, 'connected')
  }

  async park(deadline: number): Promise<ParkedFrontend> {
    const listener = this.#listener!
    const release = (): void => {
      listener.release()
      for (const {stream} of this.#connections) stream.releaseInput()
    }
    listener.hold()
    for (const {stream} of this.#connections) stream.holdInput()
    await waitQuiet('socket', deadline, () => [...this.#connections].every(connection => connection.isQuiet)).catch((error: unknown) => {
      release()
      throw error
    })
    const connections = [...this.#connections]
    const state: SocketState = {path: this.endpoint, connections: connections.map(connection => connection.detach())}
    return {
      state,
      fds: [listener.fd, ...connections.map(({stream}) => stream.fd)],
      resume: () => {
        for (const {stream} of connections) stream.reattach()
        release()
      },
    }
  }

  close(graceMs = 0): Promise<void> {
    this.#closed ??= this.#close(graceMs)
    return this.#closed
  }

  async #close(graceMs: number): Promise<void> {
    await this.#listener?.close()
    const deadline = performance.now() + graceMs
    for (const connection of this.#connections) connection.stopReading()
    while (performance.now() < deadline && [...this.#connections].some(isBusy)) await delay(POLL_MS)
    const late = [...this.#connections].filter(isBusy).length
    if (graceMs > 0 && late > 0) this.#log.warn({connections: late}, `socket: initiators cut off after ${graceMs} ms`)
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

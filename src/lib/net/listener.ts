import {lstat, unlink} from 'node:fs/promises'
import {constants} from 'node:os'
import {formatAddress, type Address} from '../address.js'
import {errnoOf, LonghornError, messageOf} from '../errors.js'
import {connectSocket, resolveIp} from './connect.js'
import {EPOLLIN} from './epoll.js'
import {reactor, type Pollable} from './reactor.js'
import {acceptSocket, boundPort, closeFd, listenTcp, listenUnix, tuneTcp} from './socket-calls.js'

const BACKLOG = 256
const ACCEPTS_PER_TURN = 16
/** Out of descriptors: the listener stays readable, so without a pause the loop would spin. */
const ACCEPT_PAUSE_MS = 100

/** A listening socket on the reactor. `accept` gets each new connection's descriptor and owns it. */
export class Listener implements Pollable {
  #closed = false
  #held = false

  private constructor(
    readonly fd: number,
    /** Where it really listens: the port is never 0. */
    readonly address: Address,
    readonly accept: (fd: number) => void,
  ) {
    reactor.add(this, EPOLLIN)
  }

  /**
   * Listens on a TCP address or a unix socket. A socket file left behind by a dead process is replaced; one that
   * somebody serves is not. Throws CONFLICT (in use), NOT_FOUND (no such host, address or folder), USAGE or IO.
   */
  static async open(address: Address, accept: (fd: number) => void): Promise<Listener> {
    const where = formatAddress(address)
    try {
      if (address.kind === 'unix') return new Listener(await openUnix(address.path), address, accept)
      const fd = await openTcp(address.host, address.port)
      return new Listener(fd, {...address, port: boundPort(fd)}, accept)
    } catch (error) {
      throw listenError(where, error)
    }
  }

  /** Goes on with a listening socket of another process. */
  static adopt(fd: number, address: Address, accept: (fd: number) => void): Listener {
    return new Listener(fd, address, accept)
  }

  /** Accepts nothing from now on; connections that are made wait. */
  hold(): void {
    this.#held = true
    if (!this.#closed) reactor.remove(this)
  }

  /** Ends hold(). */
  release(): void {
    this.#held = false
    if (!this.#closed) reactor.add(this, EPOLLIN)
  }

  onReady(): void {
    for (let count = 0; count < ACCEPTS_PER_TURN && !this.#closed; count++) {
      const fd = acceptSocket(this.fd)
      if (fd < 0) {
        if (-fd === constants.errno.EMFILE || -fd === constants.errno.ENFILE || -fd === constants.errno.ENOMEM) this.#pause()
        return
      }
      if (this.address.kind === 'tcp') tuneTcp(fd)
      this.accept(fd)
    }
  }

  /** Stops listening and removes a unix socket's file. Connections that were accepted go on. Safe twice. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    reactor.remove(this)
    closeFd(this.fd)
    if (this.address.kind === 'unix') await unlink(this.address.path).catch(ignoreMissing)
  }

  #pause(): void {
    reactor.modify(this, 0)
    setTimeout(() => {
      if (!this.#closed && !this.#held) reactor.modify(this, EPOLLIN)
    }, ACCEPT_PAUSE_MS)
  }
}

/** Without a host: on all interfaces, also where the kernel has no IPv6. */
async function openTcp(host: string, port: number): Promise<number> {
  if (host !== '') return listenTcp(await resolveIp(host, port), BACKLOG)
  try {
    return listenTcp({family: 6, address: '::', port}, BACKLOG)
  } catch (error) {
    if (errnoOf(error) !== 'EAFNOSUPPORT') throw error
    return listenTcp({family: 4, address: '0.0.0.0', port}, BACKLOG)
  }
}

async function openUnix(path: string): Promise<number> {
  try {
    return listenUnix(path, BACKLOG)
  } catch (error) {
    if (errnoOf(error) !== 'EADDRINUSE' || !(await isSocket(path)) || (await isServed(path))) throw error
  }
  await unlink(path).catch(ignoreMissing)
  return listenUnix(path, BACKLOG)
}

/** A file of any other kind that happens to have this name is not ours to remove; connecting to it is refused as well. */
async function isSocket(path: string): Promise<boolean> {
  return (await lstat(path)).isSocket()
}

async function isServed(path: string): Promise<boolean> {
  try {
    closeFd(await connectSocket({kind: 'unix', path}, 1000))
    return true
  } catch (error) {
    // Only a refusal proves that nobody listens; anything else may be a server that is slow.
    return !(error instanceof LonghornError && errnoOf(error.cause) === 'ECONNREFUSED')
  }
}

function ignoreMissing(error: unknown): void {
  if (errnoOf(error) !== 'ENOENT') throw error
}

function listenError(where: string, error: unknown): Error {
  const options = {cause: error}
  switch (errnoOf(error)) {
    case 'EADDRINUSE':
      return new LonghornError('CONFLICT', `cannot listen on ${where}: it is in use; stop the other process or choose another address`, {}, options)
    case 'EADDRNOTAVAIL':
      return new LonghornError('NOT_FOUND', `cannot listen on ${where}: this machine does not have that address`, {}, options)
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return new LonghornError('NOT_FOUND', `cannot listen on ${where}: the host name is not known`, {}, options)
    case 'ENOENT':
      return new LonghornError('NOT_FOUND', `cannot listen on ${where}: its folder does not exist`, {}, options)
    case 'EACCES':
      return new LonghornError('USAGE', `cannot listen on ${where}: permission denied`, {}, options)
    default:
      return new LonghornError('IO', `cannot listen on ${where}: ${messageOf(error)}`, {}, options)
  }
}

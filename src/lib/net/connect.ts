import {lookup} from 'node:dns/promises'
import {isIP} from 'node:net'
import {formatAddress, type Address} from '../address.js'
import {errnoOf, LonghornError, messageOf} from '../errors.js'
import {EPOLLOUT} from './epoll.js'
import {reactor} from './reactor.js'
import {closeFd, connectError, startConnect, tuneTcp, type IpEndpoint} from './socket-calls.js'

/** The first address that a host name stands for. */
export async function resolveIp(host: string, port: number): Promise<IpEndpoint> {
  const version = isIP(host)
  if (version === 4 || (version === 6 && !host.includes('%'))) return {family: version, address: host, port}
  const found = await lookup(host)
  return {family: found.family === 6 ? 6 : 4, address: found.address, port}
}

/**
 * Connects to a TCP address or a unix socket and gives the descriptor, which the caller owns.
 * Throws UNREACHABLE with the reason, TIMEOUT after `timeoutMs`, or `signal`'s reason.
 */
export async function connectSocket(address: Address, timeoutMs: number, signal?: AbortSignal): Promise<number> {
  signal?.throwIfAborted()
  const where = formatAddress(address)
  try {
    const to = address.kind === 'unix' ? address.path : await resolveIp(address.host === '' ? 'localhost' : address.host, address.port)
    signal?.throwIfAborted()
    const fd = startConnect(to)
    try {
      await writable(fd, where, timeoutMs, signal)
      const error = connectError(fd)
      if (error !== undefined) throw error
      if (address.kind === 'tcp') tuneTcp(fd)
      return fd
    } catch (error) {
      closeFd(fd)
      throw error
    }
  } catch (error) {
    if (error instanceof LonghornError || signal?.aborted === true) throw error
    throw new LonghornError('UNREACHABLE', `${where}: ${reasonOf(error)}`, {}, {cause: error})
  }
}

function writable(fd: number, where: string, timeoutMs: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const member = {
      fd,
      onReady(): void {
        done()
        resolve()
      },
    }
    const timer = setTimeout(() => {
      done()
      reject(new LonghornError('TIMEOUT', `${where}: no connection within ${timeoutMs} ms`))
    }, timeoutMs)
    const abort = (): void => {
      done()
      reject(signal?.reason as Error)
    }
    function done(): void {
      clearTimeout(timer)
      signal?.removeEventListener('abort', abort)
      reactor.remove(member)
    }
    signal?.addEventListener('abort', abort, {once: true})
    reactor.add(member, EPOLLOUT)
  })
}

function reasonOf(error: unknown): string {
  switch (errnoOf(error)) {
    case 'ECONNREFUSED':
      return 'connection refused'
    case 'ENOENT':
      return 'there is no such socket'
    case 'EAGAIN':
      return 'too many connections wait to be accepted'
    case 'ENOTFOUND':
      return 'the host name is not known'
    case 'EHOSTUNREACH':
    case 'ENETUNREACH':
      return 'no route to the host'
    default:
      return messageOf(error)
  }
}

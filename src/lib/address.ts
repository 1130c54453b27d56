import {isIPv4, isIPv6} from 'node:net'
import {LonghornError} from './errors.js'

export interface TcpAddress {
  readonly kind: 'tcp'
  /** A host name or an IP address without brackets. Empty when none was given (`:9501`): whoever listens or connects decides. */
  readonly host: string
  /** 0 to 65535; 0 asks the kernel for a free port when listening. */
  readonly port: number
}

export interface UnixAddress {
  readonly kind: 'unix'
  /** Absolute path of the socket. */
  readonly path: string
}

/** Where a process of this system listens. */
export type Address = TcpAddress | UnixAddress

/** What fits into sockaddr_un with its terminating zero; the kernel refuses more with a bare EINVAL. */
const MAX_SOCKET_PATH_BYTES = 107

const HOST_PORT = /^(?:\[([^\]]*)\]|([^:[\]]*)):(\d{1,5})$/
const HOST_NAME = /^[a-z\d](?:[a-z\d_-]*[a-z\d])?(?:\.[a-z\d](?:[a-z\d_-]*[a-z\d])?)*\.?$/i

/** Reads `tcp://host:port`, `host:port`, `:port`, `[::1]:port`, `unix:/path` and `unix:///path`. Throws USAGE, naming what is wrong. */
export function parseAddress(text: string): Address {
  if (text.startsWith('unix:')) return parseUnix(text)
  const match = HOST_PORT.exec(text.replace(/^tcp:\/\//, ''))
  if (match === null) throw invalid(text, 'expected host:port, tcp://host:port or unix:/path')
  const [, bracketed, plain = '', digits] = match
  const port = Number(digits)
  if (port > 65535) throw invalid(text, `port ${port} is larger than 65535`)
  if (bracketed !== undefined) {
    if (!isIPv6(bracketed)) throw invalid(text, `"${bracketed}" is not an IPv6 address`)
    return {kind: 'tcp', host: bracketed, port}
  }
  if (plain !== '' && !isHost(plain)) throw invalid(text, `"${plain}" is not a host name or an IPv4 address`)
  return {kind: 'tcp', host: plain, port}
}

/** The address with its scheme, as upstream writes it: `tcp://10.0.0.1:10000`, `unix:/run/x.sock`. */
export function formatAddress(address: Address): string {
  return address.kind === 'unix' ? `unix:${address.path}` : `tcp://${formatHostPort(address)}`
}

/** `host:port` without a scheme, IPv6 in brackets; what gRPC and most tools take. */
export function formatHostPort({host, port}: Pick<TcpAddress, 'host' | 'port'>): string {
  return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`
}

function parseUnix(text: string): UnixAddress {
  const path = text.slice('unix:'.length).replace(/^\/\/(?=\/)/, '')
  if (!path.startsWith('/') || path.startsWith('//')) throw invalid(text, 'a socket path must be absolute')
  if (path.includes('\0')) throw invalid(text, 'a socket path cannot contain a zero byte')
  if (path.endsWith('/')) throw invalid(text, 'a socket path cannot end with a slash')
  if (Buffer.byteLength(path) > MAX_SOCKET_PATH_BYTES) {
    throw invalid(text, `a socket path cannot be longer than ${MAX_SOCKET_PATH_BYTES} bytes`)
  }
  return {kind: 'unix', path}
}

/** Digits and dots alone are always meant as an IPv4 address, so `10.0.0.256` is a typing error and not a name. */
function isHost(host: string): boolean {
  return /^[\d.]+$/.test(host) ? isIPv4(host) : host.length <= 253 && HOST_NAME.test(host)
}

function invalid(text: string, reason: string): LonghornError {
  return new LonghornError('USAGE', `invalid address "${text}": ${reason}`)
}

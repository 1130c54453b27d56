import {randomInt} from 'node:crypto'
import {once} from 'node:events'
import {readFileSync} from 'node:fs'
import {connect, createServer, Socket} from 'node:net'
import {networkInterfaces} from 'node:os'
import type {Address} from '../../src/lib/address.js'
import {errnoOf} from '../../src/lib/errors.js'
import {libcFunction} from '../../src/lib/sys/libc.js'
import {closeFd} from '../../src/lib/net/socket-calls.js'

const LEAST_PORT = 12_000
/** Where the kernel gives all of them to everybody: what is usual elsewhere. */
const MOST_PORT = 32_768
const AF_UNIX = 1
const SOCK_STREAM_NONBLOCK_CLOEXEC = 0x1 | 0x800 | 0x80000
const SOL_SOCKET = 1
const SO_SNDBUF = 7
const SO_RCVBUF = 8
const SO_LINGER = 13

const socketpair = libcFunction<(domain: number, type: number, protocol: number, fds: Buffer) => number>(
  'int socketpair(int domain, int type, int protocol, void *fds)',
)
const setsockopt = libcFunction<(fd: number, level: number, name: number, value: Buffer, length: number) => number>(
  'int setsockopt(int fd, int level, int name, const void *value, uint32_t length)',
)
const dup = libcFunction<(fd: number) => number>('int dup(int fd)')

/** Whether this machine has IPv6 at all. */
export const hasIpv6 = Object.values(networkInterfaces()).some(list => list?.some(({address}) => address === '::1') === true)

/** Two connected unix stream sockets, non-blocking. The caller owns both descriptors. */
export function socketPair(): [number, number] {
  const fds = Buffer.alloc(8)
  if (socketpair(AF_UNIX, SOCK_STREAM_NONBLOCK_CLOEXEC, 0, fds) !== 0) throw new Error('socketpair failed')
  return [fds.readInt32LE(0), fds.readInt32LE(4)]
}

/** Makes the kernel's buffers of a socket small, so that a sender meets a full one. It keeps a minimum of a few KiB. */
export function shrinkBuffers(fd: number, bytes = 4096): void {
  const value = Buffer.alloc(4)
  value.writeInt32LE(bytes)
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, value, 4)
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, value, 4)
}

/** Closes a TCP socket so that its peer gets a reset, as after a crash of the machine it was on. */
export function resetFd(fd: number): void {
  const linger = Buffer.alloc(8)
  linger.writeInt32LE(1)
  setsockopt(fd, SOL_SOCKET, SO_LINGER, linger, 8)
  closeFd(fd)
}

/** Another descriptor of the same socket. */
export function duplicateFd(fd: number): number {
  return dup(fd)
}

/** The other end of a connection, in Node's own sockets: code that shares nothing with ours. */
export function nodeSocket(fd: number): Socket {
  return new Socket({fd, readable: true, writable: true, allowHalfOpen: true}).on('error', () => undefined)
}

/** Connects to one of our listeners with Node's own socket. */
export async function dial(address: Address): Promise<Socket> {
  const socket = address.kind === 'unix' ? connect(address.path) : connect(address.port, address.host)
  socket.on('error', () => undefined)
  await once(socket, 'connect')
  return socket
}

/** What a socket receives until its peer ends. */
export async function receiveAll(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of socket) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

/**
 * For programs that take a port number and no open socket, and want it again when they are started once more. It is below those that the kernel
 * gives to everybody who asks for just any, so that it is still free then.
 */
export async function freePort(): Promise<number> {
  const [first = NaN] = readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8').split(/\s+/).map(Number)
  const end = first > LEAST_PORT + 1000 ? first : MOST_PORT
  for (;;) {
    const port = randomInt(LEAST_PORT, end)
    const server = createServer()
    const listening = once(server, 'listening').then(() => true, (error: unknown) => taken(error))
    server.listen(port, '127.0.0.1')
    if (!(await listening)) continue
    await new Promise(resolve => server.close(resolve))
    return port
  }
}

function taken(error: unknown): false {
  if (errnoOf(error) === 'EADDRINUSE') return false
  throw error
}

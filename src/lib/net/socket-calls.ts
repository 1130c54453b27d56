// The socket system calls of the data path, through koffi. Node's own sockets cost 10 to 15 µs per wake-up and
// per write; these cost the system call plus 0.1 µs, which is what makes the engine several times faster (bench/).
// Addresses of buffers are passed as numbers: they are below 2^48 and exact in a double.
import {constants} from 'node:os'
import {lastErrno, libcFunction} from '../sys/libc.js'
import {systemError, type SystemError} from '../sys/system-error.js'

const AF_UNIX = 1
const AF_INET = 2
const AF_INET6 = 10
const SOCK_STREAM = 1
const SOCK_NONBLOCK = 0x800
const SOCK_CLOEXEC = 0x80000
const SOL_SOCKET = 1
const IPPROTO_TCP = 6
const IPPROTO_IPV6 = 41
const SO_REUSEADDR = 2
const SO_ERROR = 4
const SO_SNDBUF = 7
const SO_RCVBUF = 8
const SO_KEEPALIVE = 9
const IPV6_V6ONLY = 26
const TCP_NODELAY = 1
const TCP_KEEPIDLE = 4
const TCP_KEEPINTVL = 5
const TCP_KEEPCNT = 6
const TCP_CONGESTION = 13
const MSG_NOSIGNAL = 0x4000
const MSG_CMSG_CLOEXEC = 0x40000000
const SO_PEERCRED = 17
const SHUT_WR = 1

const {EINPROGRESS, EINTR} = constants.errno

/** Numbers and buffers in, a number out. */
export type Call = (...values: (number | Buffer | null)[]) => number

const calls = {
  socket: libcFunction<Call>('int socket(int domain, int type, int protocol)'),
  bind: libcFunction<Call>('int bind(int fd, const void *address, uint32_t length)'),
  listen: libcFunction<Call>('int listen(int fd, int backlog)'),
  accept4: libcFunction<Call>('int accept4(int fd, void *address, void *length, int flags)'),
  connect: libcFunction<Call>('int connect(int fd, const void *address, uint32_t length)'),
  getpeername: libcFunction<Call>('int getpeername(int fd, void *address, void *length)'),
  getsockname: libcFunction<Call>('int getsockname(int fd, void *address, void *length)'),
  setsockopt: libcFunction<Call>('int setsockopt(int fd, int level, int name, const void *value, uint32_t length)'),
  getsockopt: libcFunction<Call>('int getsockopt(int fd, int level, int name, void *value, void *length)'),
  shutdown: libcFunction<Call>('int shutdown(int fd, int how)'),
  close: libcFunction<Call>('int close(int fd)'),
  recv: libcFunction<Call>('int64_t recv(int fd, uintptr_t buffer, size_t length, int flags)'),
  sendmsg: libcFunction<Call>('int64_t sendmsg(int fd, uintptr_t message, int flags)'),
  recvmsg: libcFunction<Call>('int64_t recvmsg(int fd, uintptr_t message, int flags)'),
}

/** The result of a call. Throws SystemError when it is negative; `doing` is for the message. */
export function checked(result: number, call: string, doing: string): number {
  if (result < 0) throw systemError(call, lastErrno(), doing)
  return result
}

export interface IpEndpoint {
  readonly family: 4 | 6
  readonly address: string
  readonly port: number
}

function ipSockaddr({family, address, port}: IpEndpoint): Buffer {
  if (family === 4) {
    const bytes = Buffer.alloc(16)
    bytes.writeUInt16LE(AF_INET, 0)
    bytes.writeUInt16BE(port, 2)
    address.split('.').forEach((part, index) => bytes.writeUInt8(Number(part), 4 + index))
    return bytes
  }
  const bytes = Buffer.alloc(28)
  bytes.writeUInt16LE(AF_INET6, 0)
  bytes.writeUInt16BE(port, 2)
  ipv6Bytes(address).copy(bytes, 8)
  return bytes
}

/** The 16 bytes of an IPv6 address that net.isIPv6() accepts; a zone (`%eth0`) is refused by the caller. */
function ipv6Bytes(address: string): Buffer {
  const mapped = /^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(address)
  const text =
    mapped === null
      ? address
      : `${mapped[1]}${((Number(mapped[2]) << 8) | Number(mapped[3])).toString(16)}:${((Number(mapped[4]) << 8) | Number(mapped[5])).toString(16)}`
  const [head = '', tail] = text.split('::')
  const front = head === '' ? [] : head.split(':')
  const back = tail === undefined || tail === '' ? [] : tail.split(':')
  const groups = [...front, ...Array.from({length: 8 - front.length - back.length}, () => '0'), ...back]
  const bytes = Buffer.alloc(16)
  groups.forEach((group, index) => bytes.writeUInt16BE(parseInt(group, 16), index * 2))
  return bytes
}

function unixSockaddr(path: string): Buffer {
  const name = Buffer.from(path)
  const bytes = Buffer.alloc(2 + name.length + 1)
  bytes.writeUInt16LE(AF_UNIX, 0)
  name.copy(bytes, 2)
  return bytes
}

function setOption(fd: number, level: number, name: number, value: number): void {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32LE(value)
  checked(calls.setsockopt(fd, level, name, bytes, 4), 'setsockopt', 'setting a socket option')
}

/** Asks for larger kernel buffers. The kernel may give less, which costs speed and nothing else. */
export function setBufferSizes(fd: number, bytes: number): void {
  const value = Buffer.alloc(4)
  value.writeInt32LE(bytes)
  calls.setsockopt(fd, SOL_SOCKET, SO_SNDBUF, value, 4)
  calls.setsockopt(fd, SOL_SOCKET, SO_RCVBUF, value, 4)
}

/** No delay for small messages, and keepalive probes that notice a dead host after about 15 + 9 × 5 seconds without traffic. */
export function tuneTcp(fd: number): void {
  setOption(fd, IPPROTO_TCP, TCP_NODELAY, 1)
  setOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1)
  setOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, 15)
  setOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, 5)
  setOption(fd, IPPROTO_TCP, TCP_KEEPCNT, 9)
  if (isWithinHost(fd)) calls.setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, RENO, RENO.length)
}

/**
 * The congestion control for connections inside a host. A default of BBR or one with pacing measures a bandwidth that
 * is not there and holds data back by timers: large reads from replicas on the engine's host were a quarter slower.
 * Reno is in every kernel and open to every user; if it is refused the default stays, which costs speed and nothing else.
 */
const RENO = Buffer.from('reno')

/** Whether both ends of a connected TCP socket have the same address, so that no network is between them. */
function isWithinHost(fd: number): boolean {
  const ends = [calls.getsockname, calls.getpeername].map(ask => {
    const address = Buffer.alloc(28)
    const length = Buffer.from([28, 0, 0, 0])
    if (ask(fd, address, length) < 0) return undefined
    return address.readUInt16LE(0) === AF_INET ? address.subarray(4, 8) : address.subarray(8, 24)
  })
  const [own, peer] = ends
  return own !== undefined && peer !== undefined && own.equals(peer)
}

const NEW_SOCKET = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC

/** A listening TCP socket. Throws SystemError (EADDRINUSE, EADDRNOTAVAIL, EACCES, …). */
export function listenTcp(endpoint: IpEndpoint, backlog: number): number {
  const fd = checked(calls.socket(endpoint.family === 4 ? AF_INET : AF_INET6, NEW_SOCKET, 0), 'socket', 'opening a socket')
  try {
    setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1)
    // `::` takes IPv4 clients as well, as Node's own servers and Go's do.
    if (endpoint.family === 6) setOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0)
    const address = ipSockaddr(endpoint)
    checked(calls.bind(fd, address, address.length), 'bind', 'taking the address')
    checked(calls.listen(fd, backlog), 'listen', 'listening')
  } catch (error) {
    closeFd(fd)
    throw error
  }
  return fd
}

/** A listening unix socket at `path`, which must not exist yet. Throws SystemError. */
export function listenUnix(path: string, backlog: number): number {
  const fd = checked(calls.socket(AF_UNIX, NEW_SOCKET, 0), 'socket', 'opening a socket')
  try {
    const address = unixSockaddr(path)
    checked(calls.bind(fd, address, address.length), 'bind', 'taking the address')
    checked(calls.listen(fd, backlog), 'listen', 'listening')
  } catch (error) {
    closeFd(fd)
    throw error
  }
  return fd
}

/** Starts to connect; the socket becomes writable when it is decided, and connectError() then tells how. Throws SystemError. */
export function startConnect(to: IpEndpoint | string): number {
  const domain = typeof to === 'string' ? AF_UNIX : to.family === 4 ? AF_INET : AF_INET6
  const address = typeof to === 'string' ? unixSockaddr(to) : ipSockaddr(to)
  const fd = checked(calls.socket(domain, NEW_SOCKET, 0), 'socket', 'opening a socket')
  if ((calls.connect(fd, address, address.length)) < 0) {
    const errno = lastErrno()
    // EAGAIN is a refusal: the queue of a unix socket is full, and a socket left like that would look connected.
    if (errno !== EINPROGRESS && errno !== EINTR) {
      closeFd(fd)
      throw systemError('connect', errno, 'connecting')
    }
  }
  return fd
}

/** The pending error of a socket, or undefined when it is connected. */
export function connectError(fd: number): SystemError | undefined {
  const value = Buffer.alloc(4)
  const length = Buffer.from([4, 0, 0, 0])
  checked(calls.getsockopt(fd, SOL_SOCKET, SO_ERROR, value, length), 'getsockopt', 'asking for the state of a socket')
  const errno = value.readInt32LE()
  return errno === 0 ? undefined : systemError('connect', errno, 'connecting')
}

/** The port a TCP socket is bound to. */
export function boundPort(fd: number): number {
  const address = Buffer.alloc(28)
  const length = Buffer.from([28, 0, 0, 0])
  checked(calls.getsockname(fd, address, length), 'getsockname', 'asking for the address of a socket')
  return address.readUInt16BE(2)
}

/** The next waiting connection, non-blocking; a negative errno when there is none or accepting failed. */
export function acceptSocket(listener: number): number {
  const fd = calls.accept4(listener, null, null, SOCK_NONBLOCK | SOCK_CLOEXEC)
  return fd >= 0 ? fd : -lastErrno()
}

export function shutdownWrite(fd: number): void {
  calls.shutdown(fd, SHUT_WR)
}

export function closeFd(fd: number): void {
  calls.close(fd)
}

/** Bytes received, 0 at the end of the stream, or a negative errno. */
export function receive(fd: number, address: number, length: number): number {
  const result = calls.recv(fd, address, length, 0)
  return result >= 0 ? result : -lastErrno()
}

/** Bytes taken by the kernel, or a negative errno. `message` is the address of a struct msghdr. */
export function sendMessage(fd: number, message: number): number {
  const result = calls.sendmsg(fd, message, MSG_NOSIGNAL)
  return result >= 0 ? result : -lastErrno()
}

/** Bytes received, 0 at the end of the stream, or a negative errno. Descriptors that come along are closed on exec. `message` as above. */
export function receiveMessage(fd: number, message: number): number {
  const result = calls.recvmsg(fd, message, MSG_CMSG_CLOEXEC)
  return result >= 0 ? result : -lastErrno()
}

/** Who is at the other end of a unix socket: struct ucred of the moment of connect() or listen(). Throws SystemError. */
export function peerCredentials(fd: number): {readonly pid: number; readonly uid: number} {
  const value = Buffer.alloc(12)
  const length = Buffer.from([12, 0, 0, 0])
  checked(calls.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, value, length), 'getsockopt', 'asking who is at the other end of a socket')
  return {pid: value.readInt32LE(0), uid: value.readUInt32LE(4)}
}

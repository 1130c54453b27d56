// Sockets used one call after the other, with a deadline for each. The keeper has nothing else to do meanwhile, and needs
// the bare descriptors: Node's own sockets read ahead, and what follows the handshake is for the kernel to read.
import {constants} from 'node:os'
import {performance} from 'node:perf_hooks'
import {LonghornError} from '../../../lib/errors.js'
import {checked, type Call} from '../../../lib/net/socket-calls.js'
import {lastErrno, libcFunction} from '../../../lib/sys/libc.js'
import {systemError} from '../../../lib/sys/system-error.js'

const POLLIN = 1
const POLLOUT = 4
const POLLFD_BYTES = 8
const MSG_NOSIGNAL = 0x4000
const SHUT_RDWR = 2

const {EAGAIN, EINTR} = constants.errno

const poll = libcFunction<Call>('int poll(void *fds, uint64_t count, int timeoutMs)')
const send = libcFunction<Call>('int64_t send(int fd, const void *bytes, size_t length, int flags)')
const recv = libcFunction<Call>('int64_t recv(int fd, void *bytes, size_t length, int flags)')
const shutdown = libcFunction<Call>('int shutdown(int fd, int how)')

/** Returns when bytes can be sent, or a connection is decided. `deadline` is a time of performance.now(). Throws TIMEOUT. */
export function waitWritable(fd: number, deadline: number): void {
  wait(fd, POLLOUT, deadline)
}

export function waitReadable(fd: number, deadline: number): void {
  wait(fd, POLLIN, deadline)
}

/** Throws SystemError, or TIMEOUT. */
export function sendAll(fd: number, bytes: Buffer, deadline: number): void {
  for (let rest = bytes; rest.length > 0; ) {
    waitWritable(fd, deadline)
    const sent = send(fd, rest, rest.length, MSG_NOSIGNAL)
    if (sent >= 0) rest = rest.subarray(sent)
    else retryOrThrow('send', 'sending')
  }
}

/** Exactly so many bytes. Throws PROTOCOL when the stream ends before, SystemError, or TIMEOUT. */
export function receiveExactly(fd: number, length: number, deadline: number): Buffer {
  const bytes = Buffer.alloc(length)
  for (let have = 0; have < length; ) {
    waitReadable(fd, deadline)
    const rest = bytes.subarray(have)
    const received = recv(fd, rest, rest.length, 0)
    if (received === 0) throw new LonghornError('PROTOCOL', 'the server closed the connection during the negotiation')
    if (received > 0) have += received
    else retryOrThrow('recv', 'receiving')
  }
  return bytes
}

/** One datagram, at most `maxBytes` of it. Throws SystemError, or TIMEOUT. */
export function receiveDatagram(fd: number, maxBytes: number, deadline: number): Buffer {
  const bytes = Buffer.alloc(maxBytes)
  for (;;) {
    waitReadable(fd, deadline)
    const received = recv(fd, bytes, bytes.length, 0)
    if (received >= 0) return bytes.subarray(0, received)
    retryOrThrow('recv', 'receiving')
  }
}

/** Ends a connection in both directions, whoever else holds the socket. */
export function shutDown(fd: number): void {
  shutdown(fd, SHUT_RDWR)
}

function wait(fd: number, events: number, deadline: number): void {
  const fds = Buffer.alloc(POLLFD_BYTES)
  fds.writeInt32LE(fd, 0)
  fds.writeInt16LE(events, 4)
  for (;;) {
    const leftMs = Math.ceil(deadline - performance.now())
    const ready = leftMs > 0 ? poll(fds, 1, leftMs) : 0
    if (ready > 0) return
    if (ready === 0) throw new LonghornError('TIMEOUT', 'nothing was heard in time')
    if (lastErrno() !== EINTR) checked(ready, 'poll', 'waiting for a socket')
  }
}

function retryOrThrow(call: string, doing: string): void {
  const errno = lastErrno()
  if (errno !== EAGAIN && errno !== EINTR) throw systemError(call, errno, doing)
}

import {LonghornError} from '../errors.js'
import {bufferAddress} from '../sys/buffer-address.js'
import {systemError} from '../sys/system-error.js'
import {EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT} from './epoll.js'
import {isWouldBlock, reactor, type Pollable} from './reactor.js'
import {closeFd, receiveMessage, sendMessage} from './socket-calls.js'

// A message is  0 u32 length, little-endian  4 JSON in UTF-8;  descriptors come with the first byte of a message (SCM_RIGHTS).
// struct cmsghdr, little-endian 64-bit:  0 u64 length of all  8 i32 level  12 i32 type  16 one i32 for each descriptor
const HEADER_BYTES = 4
const MAX_MESSAGE_BYTES = 256 << 20
const MSGHDR_BYTES = 56
const CMSG_BYTES = 16
const SOL_SOCKET = 1
const SCM_RIGHTS = 1
/** The kernel takes 253 at once. */
const FDS_PER_CALL = 128
const RECEIVE_BYTES = 64 * 1024
const MSG_CTRUNC = 8

interface Outgoing {
  readonly bytes: Buffer
  readonly fds: readonly number[]
}

/**
 * Messages between two processes over a connected unix socket, with descriptors of open files. Owns the socket. What is received
 * waits until it is asked for; descriptors belong to whoever has received them.
 */
export class FdChannel implements Pollable {
  readonly #outgoing: Outgoing[] = []
  #input = Buffer.alloc(0)
  readonly #arrived: Buffer[] = []
  #arrivedBytes = 0
  readonly #messages: unknown[] = []
  readonly #fds: number[] = []
  #failure: Error | undefined
  #waiting: (() => void) | undefined
  #closed = false

  constructor(
    readonly fd: number,
    /** For messages of errors. */
    readonly peer: string,
  ) {
    reactor.add(this, EPOLLIN)
  }

  /** Sends soon; now, when nothing waits and the socket takes it. `fds` stay the caller's and must stay open until it is sent. Throws UNREACHABLE when the channel has ended. */
  send(message: object, fds: readonly number[] = []): void {
    if (this.#failure !== undefined) throw this.#failure
    const body = Buffer.from(JSON.stringify(message))
    if (body.length > MAX_MESSAGE_BYTES) throw new LonghornError('UNSUPPORTED', `${this.peer}: a message of ${body.length} bytes is too large`)
    const bytes = Buffer.alloc(HEADER_BYTES + body.length)
    bytes.writeUInt32LE(body.length)
    body.copy(bytes, HEADER_BYTES)
    // A byte each for all but the last of them; there are enough bytes for any number of sockets.
    const calls = Math.ceil(fds.length / FDS_PER_CALL)
    for (let call = 0; call < calls - 1; call++) {
      this.#outgoing.push({bytes: bytes.subarray(call, call + 1), fds: fds.slice(call * FDS_PER_CALL, (call + 1) * FDS_PER_CALL)})
    }
    const rest = Math.max(calls - 1, 0)
    this.#outgoing.push({bytes: bytes.subarray(rest), fds: fds.slice(rest * FDS_PER_CALL)})
    this.#send()
    if (this.#failure !== undefined) throw this.#failure as Error
  }

  /** The next message. Rejects with UNREACHABLE when the peer has ended or closed, TIMEOUT, PROTOCOL; Infinity is allowed. */
  async receive(timeoutMs: number): Promise<unknown> {
    const deadline = performance.now() + timeoutMs
    while (this.#messages.length === 0) {
      if (this.#failure !== undefined) throw this.#failure
      const left = deadline - performance.now()
      if (left <= 0) throw new LonghornError('TIMEOUT', `${this.peer}: no message for ${timeoutMs} ms`)
      await this.#wait(left)
    }
    return this.#messages.shift()
  }

  /** The descriptors that have come so far, in the order they were sent; they are the caller's now. */
  takeFds(): number[] {
    return this.#fds.splice(0)
  }

  /** Closes the socket and descriptors that nobody has taken. Safe twice. */
  close(): void {
    if (this.#closed) return
    this.#fail(new LonghornError('UNREACHABLE', `${this.peer}: the channel is closed`))
  }

  onReady(events: number): void {
    if ((events & EPOLLOUT) !== 0) this.#send()
    if (!this.#closed && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) !== 0) this.#receive()
  }

  #wait(ms: number): Promise<void> {
    return new Promise(resolve => {
      const timer = ms === Infinity ? undefined : setTimeout(resolve, ms)
      this.#waiting = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }

  #send(): void {
    for (let next = this.#outgoing[0]; next !== undefined; next = this.#outgoing[0]) {
      const sent = sendWithFds(this.fd, next)
      if (sent < 0) {
        if (!isWouldBlock(-sent)) this.#fail(this.#lost(systemError('sendmsg', -sent, 'sending a message').message))
        break
      }
      if (sent === next.bytes.length) this.#outgoing.shift()
      else this.#outgoing[0] = {bytes: next.bytes.subarray(sent), fds: []}
    }
    if (!this.#closed) reactor.modify(this, EPOLLIN | (this.#outgoing.length > 0 ? EPOLLOUT : 0))
  }

  #receive(): void {
    const {count, bytes, fds, truncated} = receiveWithFds(this.fd)
    this.#fds.push(...fds)
    if (truncated) this.#fail(new LonghornError('IO', `${this.peer}: this process cannot hold more open files; raise its limit (ulimit -n)`))
    else if (count === 0) this.#fail(this.#lost('it has ended the channel'))
    else if (count < 0 && !isWouldBlock(-count)) this.#fail(this.#lost(systemError('recvmsg', -count, 'receiving a message').message))
    else if (count > 0) this.#take(bytes)
  }

  #take(bytes: Buffer): void {
    this.#arrived.push(bytes)
    this.#arrivedBytes += bytes.length
    for (;;) {
      // Put together only when a message is complete: a large one comes in many parts.
      if (this.#input.length < HEADER_BYTES) this.#gather()
      if (this.#input.length < HEADER_BYTES) return
      const length = this.#input.readUInt32LE()
      if (length > MAX_MESSAGE_BYTES) return this.#fail(new LonghornError('PROTOCOL', `${this.peer}: a message of ${length} bytes`))
      if (this.#input.length + this.#arrivedBytes < HEADER_BYTES + length) return
      this.#gather()
      const text = this.#input.toString('utf8', HEADER_BYTES, HEADER_BYTES + length)
      this.#input = this.#input.subarray(HEADER_BYTES + length)
      try {
        this.#messages.push(JSON.parse(text))
      } catch (error) {
        return this.#fail(new LonghornError('PROTOCOL', `${this.peer}: a message that is not JSON`, {}, {cause: error}))
      }
      this.#waiting?.()
    }
  }

  #gather(): void {
    if (this.#arrived.length === 0) return
    this.#input = Buffer.concat([this.#input, ...this.#arrived.splice(0)])
    this.#arrivedBytes = 0
  }

  #lost(what: string): LonghornError {
    return new LonghornError('UNREACHABLE', `${this.peer}: ${what}`)
  }

  #fail(reason: Error): void {
    this.#failure ??= reason
    if (!this.#closed) {
      this.#closed = true
      reactor.remove(this)
      closeFd(this.fd)
      for (const fd of this.#fds.splice(0)) closeFd(fd)
    }
    this.#waiting?.()
  }
}

function sendWithFds(socket: number, {bytes, fds}: Outgoing): number {
  // One that is not the view of a larger one: its address is taken.
  const data = Buffer.from(bytes)
  const control = Buffer.alloc(fds.length === 0 ? 0 : controlBytes(fds.length))
  if (fds.length > 0) {
    control.writeUInt32LE(CMSG_BYTES + 4 * fds.length, 0)
    control.writeInt32LE(SOL_SOCKET, 8)
    control.writeInt32LE(SCM_RIGHTS, 12)
    fds.forEach((fd, index) => control.writeInt32LE(fd, CMSG_BYTES + 4 * index))
  }
  return withMessage(data, control, message => sendMessage(socket, bufferAddress(message)))
}

function receiveWithFds(socket: number): {count: number; bytes: Buffer; fds: number[]; truncated: boolean} {
  const data = Buffer.alloc(RECEIVE_BYTES)
  const control = Buffer.alloc(controlBytes(FDS_PER_CALL))
  return withMessage(data, control, message => {
    const count = receiveMessage(socket, bufferAddress(message))
    const received = count < 0 ? 0 : Number(message.readBigUInt64LE(40))
    const fds: number[] = []
    if (received >= CMSG_BYTES && control.readInt32LE(8) === SOL_SOCKET && control.readInt32LE(12) === SCM_RIGHTS) {
      const end = Math.min(received, Number(control.readBigUInt64LE(0)))
      for (let at = CMSG_BYTES; at + 4 <= end; at += 4) fds.push(control.readInt32LE(at))
    }
    return {count, bytes: data.subarray(0, Math.max(count, 0)), fds, truncated: count >= 0 && (message.readInt32LE(48) & MSG_CTRUNC) !== 0}
  })
}

/** Used by one system call after the other. */
const vector = Buffer.alloc(16)
const message = Buffer.alloc(MSGHDR_BYTES)

/** Calls `use` with a struct msghdr of one piece of data and one of control data. */
function withMessage<T>(data: Buffer, control: Buffer, use: (message: Buffer) => T): T {
  vector.writeBigUInt64LE(BigInt(bufferAddress(data)), 0)
  vector.writeBigUInt64LE(BigInt(data.length), 8)
  message.fill(0)
  message.writeBigUInt64LE(BigInt(bufferAddress(vector)), 16)
  message.writeBigUInt64LE(1n, 24)
  message.writeBigUInt64LE(control.length === 0 ? 0n : BigInt(bufferAddress(control)), 32)
  message.writeBigUInt64LE(BigInt(control.length), 40)
  return use(message)
}

/** CMSG_SPACE: with the padding behind the descriptors. */
function controlBytes(count: number): number {
  return CMSG_BYTES + Math.ceil((4 * count) / 8) * 8
}

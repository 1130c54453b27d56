import {LonghornError} from '../errors.js'
import {EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT} from './epoll.js'
import {isWouldBlock, reactor, type Flushable, type Pollable} from './reactor.js'
import {SendQueue} from './send-queue.js'
import {SLAB_BYTES, slabs, type Slab} from './slab.js'
import {systemError} from '../sys/system-error.js'
import {closeFd, receive, setBufferSizes, shutdownWrite} from './socket-calls.js'

/** What a stream tells its user. All calls come from the reactor, one at a time. */
export interface StreamHandler {
  /**
   * Bytes have arrived: `stream.input` from `stream.start` to `stream.end`. The handler moves `start` past what it has
   * dealt with; the rest is shown again, with more. What it throws ends the stream with that reason.
   */
  onInput(stream: ByteStream): void
  /** The stream has ended, once: `reason` undefined when the peer closed it in order and all it sent was handled. */
  onClose(stream: ByteStream, reason: Error | undefined): void
  /** Everything queued has been taken by the kernel, after a time when it was not or while receiving is paused. */
  onDrain?(stream: ByteStream): void
}

/** The most bytes that a handler may leave unhandled while it waits for more: any unit that must be contiguous fits. */
export const MAX_UNIT_BYTES = SLAB_BYTES / 2

/** Less room than this at the end of the slab, and unhandled bytes are moved to the front of one. */
const LEAST_ROOM_BYTES = SLAB_BYTES / 4

/** How long a stream that is ending waits for its peer to take what is queued. */
const END_TIMEOUT_MS = 5000

const KERNEL_BUFFER_BYTES = 4 * 1024 * 1024

/**
 * A connected stream socket on the reactor. Input is received into a slab and looked at in place, once a turn; output
 * is queued by address and sent at the end of the turn.
 *
 * Whoever forwards input without copying it pushes `stream.slab` to another stream's queue; the slab is then left alone
 * until that other stream has sent it.
 */
export class ByteStream implements Pollable, Flushable {
  /** The unhandled input is in here … */
  input: Buffer
  slab: Slab
  /** … from this offset … */
  start = 0
  /** … up to this one. */
  end = 0
  readonly output = new SendQueue()
  /** Set when the stream has ended. */
  closed = false
  #paused = false
  #queued = false
  #blocked = false
  #ending = false
  #peerEnded = false
  /** Input from before a pause waits to be shown. */
  #leftOver = false
  #interest = EPOLLIN
  #held = false

  constructor(
    readonly fd: number,
    readonly handler: StreamHandler,
    /** For messages: who is at the other end. */
    readonly peer: string,
  ) {
    this.slab = slabs.take()
    this.input = this.slab.buffer
    setBufferSizes(fd, KERNEL_BUFFER_BYTES)
    reactor.add(this, EPOLLIN)
  }

  /** Bytes that have arrived and are not handled. */
  get available(): number {
    return this.end - this.start
  }

  /** Has output sent at the end of this turn. To be called after pushing to `output`. */
  flushSoon(): void {
    if (this.#queued || this.closed) return
    this.#queued = true
    reactor.flushSoon(this)
  }

  /** Called by the reactor. */
  flush(): void {
    this.#queued = false
    if (this.closed) return
    if (this.#blocked) this.output.hold()
    else this.#send()
  }

  /** Stops receiving: how this side says that it has enough to do. Input already received may still be looked at by the user. */
  pause(): void {
    this.#paused = true
    this.#updateInterest()
  }

  /** Receives again, after input that was left over has been shown, which happens soon and never during this call. */
  resume(): void {
    if (!this.#paused || this.closed) return
    this.#paused = false
    this.#updateInterest()
    this.#showSoon()
  }

  get paused(): boolean {
    return this.#paused
  }

  /**
   * From now on no input is shown to the handler, whatever it does itself, and none is received; what was received stays here. Output
   * goes on. For a stream that another process may go on with.
   */
  holdInput(): void {
    this.#held = true
    this.#updateInterest()
  }

  get inputHeld(): boolean {
    return this.#held
  }

  /** Ends holdInput(): what was received meanwhile is shown soon, and never during this call. */
  releaseInput(): void {
    if (!this.#held) return
    this.#held = false
    this.#updateInterest()
    this.#showSoon()
  }

  /** Stops to look at the socket at all; it stays open. Input is held before. */
  detach(): void {
    if (!this.closed) reactor.remove(this)
  }

  /** Ends detach(). */
  reattach(): void {
    if (!this.closed) reactor.add(this, this.#interest)
  }

  /** What has been received and not handled, as a copy. */
  unhandledInput(): Buffer {
    return Buffer.from(this.input.subarray(this.start, this.end))
  }

  /** Goes on where another process has stopped: what it had received and not handled, and what it had not sent. Throws PROTOCOL. */
  preload(input: Buffer, output: Buffer): void {
    if (input.length > this.slab.size) throw new LonghornError('PROTOCOL', `${this.peer}: ${input.length} bytes of input do not fit into a slab`)
    input.copy(this.input)
    this.end = input.length
    this.#showSoon()
    for (let at = 0; at < output.length; at += SLAB_BYTES) {
      const part = output.subarray(at, at + SLAB_BYTES)
      part.copy(this.output.reserve(part.length).buffer, this.output.reservedAt)
      this.output.commit(part.length)
    }
    if (output.length > 0) this.flushSoon()
  }

  /** Sends what is queued, then closes. Input is no longer looked at. */
  endAfterFlush(): void {
    if (this.closed) return
    this.#ending = true
    if (!this.output.pending) {
      this.#finish(undefined)
      return
    }
    this.flushSoon()
    setTimeout(() => this.destroy(this.#lost('did not take the last replies')), END_TIMEOUT_MS).unref()
  }

  /** Ends the stream now; what is queued is lost. Safe twice, the first reason wins. */
  destroy(reason?: Error): void {
    if (!this.closed) this.#finish(reason)
  }

  onReady(events: number): void {
    if ((events & EPOLLOUT) !== 0) this.#send()
    if (this.closed) return
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) !== 0 && !this.#paused && !this.#held) this.#receive()
    // A reset connection while receiving is paused or held: nothing else would ever notice it.
    else if ((events & (EPOLLERR | EPOLLHUP)) !== 0) this.#finish(this.#lost('connection lost'))
  }

  #showSoon(): void {
    if (this.available === 0 || this.#leftOver) return
    this.#leftOver = true
    reactor.soon(() => this.#showLeftOver())
  }

  #showLeftOver(): void {
    if (!this.#leftOver) return
    this.#leftOver = false
    this.#handleInput()
  }

  #receive(): void {
    if (this.#leftOver) {
      // It may be more than fits beside new input. And it is pushed on in this turn, so nothing is received behind it before the next.
      this.#showLeftOver()
      return
    }
    this.#makeRoom()
    const count = receive(this.fd, this.slab.address + this.end, this.slab.size - this.end)
    if (count > 0) {
      reactor.busyPoll.bytes += count
      this.end += count
      this.#handleInput()
    } else if (count === 0) {
      this.#peerEnded = true
      this.#finish(this.available === 0 ? undefined : this.#lost('connection closed in the middle of a message'))
    } else if (!isWouldBlock(-count)) {
      this.#finish(this.#failed('recv', -count))
    }
  }

  #handleInput(): void {
    if (this.closed || this.#paused || this.#held) return
    if (this.#ending) {
      this.start = this.end
      return
    }
    try {
      this.handler.onInput(this)
    } catch (error) {
      if (!(error instanceof LonghornError)) throw error
      this.destroy(error)
    }
  }

  /** Input is received behind what is there. Bytes that somebody still has to send are never overwritten. */
  #makeRoom(): void {
    const shared = this.slab.references > 1
    if (this.start === this.end && !shared) {
      this.start = 0
      this.end = 0
      return
    }
    if (this.slab.size - this.end >= LEAST_ROOM_BYTES) return
    if (this.available > MAX_UNIT_BYTES) throw new Error('a stream handler left more than a unit unhandled')
    if (shared) {
      const next = slabs.take()
      this.input.copy(next.buffer, 0, this.start, this.end)
      this.slab.release()
      this.slab = next
      this.input = next.buffer
    } else {
      this.input.copyWithin(0, this.start, this.end)
    }
    this.end -= this.start
    this.start = 0
  }

  #send(): void {
    const result = this.output.send(this.fd)
    if (result < 0 && !isWouldBlock(-result)) {
      this.#finish(this.#failed('sendmsg', -result))
      return
    }
    const wasBlocked = this.#blocked
    this.#blocked = this.output.pending
    if (this.#blocked !== wasBlocked) this.#updateInterest()
    if (this.#blocked) return
    if (this.#ending) this.#finish(undefined)
    else if (wasBlocked || this.#paused) this.handler.onDrain?.(this)
  }

  #updateInterest(): void {
    if (this.closed) return
    const interest = (this.#paused || this.#held ? 0 : EPOLLIN) | (this.#blocked ? EPOLLOUT : 0)
    if (interest === this.#interest) return
    this.#interest = interest
    reactor.modify(this, interest)
  }

  #failed(call: string, errno: number): LonghornError {
    const cause = systemError(call, errno, 'moving data')
    return new LonghornError('UNREACHABLE', `${this.peer}: ${cause.message}`, {}, {cause})
  }

  #lost(what: string): LonghornError {
    return new LonghornError('UNREACHABLE', `${this.peer}: ${what}`)
  }

  #finish(reason: Error | undefined): void {
    this.closed = true
    reactor.remove(this)
    if (this.#ending && !this.#peerEnded) shutdownWrite(this.fd)
    closeFd(this.fd)
    this.output.clear()
    this.handler.onClose(this, reason)
    // Its bytes may have been pushed to other streams in this turn.
    reactor.releaseAfterFlush(this.slab)
  }
}

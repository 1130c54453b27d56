// One epoll loop for all data connections of this process, run inside Node's own loop.
//
// While there is traffic, each pass of Node's loop takes up to TURNS_PER_PASS turns, each of which waits in *our* epoll_wait.
// A wait looks for a while before it sleeps, when that has been worthwhile lately (BusyPoll).
// The turns are immediates, so Node runs promises and ticks between them and whatever else it has to do after them: a pass of its loop
// costs as much as a request. libuv's own epoll descriptor is a member of the set (uv_backend_fd() is libuv's documented way to be
// embedded in another loop), so completed file operations, gRPC and signals end the wait and the pass; only timers and other immediates
// may be late, by BUSY_WAIT_MS and what a pass of requests takes. When nothing has happened for LINGER_MS, a thread of the pool waits
// instead and Node's loop sleeps as usual.
import {constants} from 'node:os'
import koffi from 'koffi'
import {BusyPoll} from './busy-poll.js'
import {controlEpoll, createEpoll, EPOLLIN, EventFd, EventList, yieldProcessor} from './epoll.js'
import type {Slab} from './slab.js'

/** Something with a descriptor that wants to know when it is ready. */
export interface Pollable {
  readonly fd: number
  /** `events`: EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP. Must not throw: what it throws ends the process. */
  onReady(events: number): void
}

/** Something that has output to send once all input of this turn has been looked at. */
export interface Flushable {
  flush(): void
}

const BUSY_WAIT_MS = 2
const LINGER_MS = 20
const EVENTS_PER_TURN = 64
const TURNS_PER_PASS = 8

export class Reactor {
  /** `performance.now()` at the start of this turn: one clock reading for all requests of a turn. */
  now = performance.now()
  /** Counts turns; what was pushed by reference in an earlier turn has been sent or is held. */
  turn = 0
  readonly busyPoll = new BusyPoll()
  readonly #epoll = createEpoll()
  readonly #events = new EventList(EVENTS_PER_TURN)
  readonly #wake = new EventFd()
  readonly #libuv = libuvDescriptor()
  readonly #members = new Map<number, Pollable>()
  #dirty: Flushable[] = []
  readonly #unused: Slab[] = []
  #flushing: Flushable[] = []
  #mode: 'stopped' | 'busy' | 'idle' = 'stopped'
  #inTurn = false
  #flushPlanned = false
  #lastEvent = 0
  /** Immediates of this pass that have not run yet. */
  #turnsPlanned = 0
  /** Those do nothing: it is Node's turn. */
  #passOver = false
  readonly #turn = (): void => this.#runPlanned()

  constructor() {
    controlEpoll(this.#epoll, 'add', this.#wake.fd, EPOLLIN)
    // At exit libuv joins the threads of its pool; one that waits in epoll_wait would keep the process from ending.
    process.on('exit', () => this.#wake.signal())
  }

  /** Starts to watch; keeps the process alive until remove(). */
  add(member: Pollable, events: number): void {
    controlEpoll(this.#epoll, 'add', member.fd, events)
    this.#members.set(member.fd, member)
    if (this.#mode === 'stopped') this.#becomeBusy()
  }

  modify(member: Pollable, events: number): void {
    controlEpoll(this.#epoll, 'modify', member.fd, events)
  }

  /** Stops watching. The caller closes the descriptor afterwards, never before. */
  remove(member: Pollable): void {
    if (!this.#members.delete(member.fd)) return
    controlEpoll(this.#epoll, 'remove', member.fd, 0)
    // A pool thread that waits for nothing would keep the process alive.
    if (this.#members.size === 0 && this.#mode === 'idle') this.#wake.signal()
  }

  /** `now` during a turn, else the clock itself: while nothing happens `now` grows old. */
  time(): number {
    return this.#inTurn ? this.now : performance.now()
  }

  /** Has `what.flush()` called once, at the end of this turn, or soon when no turn is running. */
  flushSoon(what: Flushable): void {
    this.#dirty.push(what)
    this.#planFlush()
  }

  /** Has `callback` called soon, behind all promises that are ready; no turn waits before. */
  soon(callback: () => void): void {
    this.#passOver = true
    setImmediate(callback)
  }

  /**
   * Gives up a reference once everything queued so far has been sent or is held: for slabs whose bytes may have been
   * pushed to a stream in this turn.
   */
  releaseAfterFlush(slab: Slab): void {
    this.#unused.push(slab)
    this.#planFlush()
  }

  #planFlush(): void {
    if (this.#inTurn || this.#flushPlanned) return
    this.#flushPlanned = true
    // Behind all promises that are ready now, so that their output goes out in the same system call.
    setImmediate(() => {
      this.#flushPlanned = false
      if (!this.#inTurn) this.#flush()
    })
  }

  #becomeBusy(): void {
    this.#mode = 'busy'
    this.#lastEvent = performance.now()
    if (this.#libuv !== undefined) controlEpoll(this.#epoll, 'add', this.#libuv, EPOLLIN)
    if (this.#turnsPlanned === 0) this.#planPass()
  }

  #planPass(): void {
    this.#passOver = false
    this.#turnsPlanned = TURNS_PER_PASS
    for (let turn = 0; turn < TURNS_PER_PASS; turn++) setImmediate(this.#turn)
  }

  #runPlanned(): void {
    this.#turnsPlanned--
    if (!this.#passOver && this.#mode === 'busy') this.#runTurn()
    if (this.#turnsPlanned === 0 && this.#mode === 'busy') this.#planPass()
  }

  #leaveBusy(): void {
    if (this.#libuv !== undefined) controlEpoll(this.#epoll, 'remove', this.#libuv, 0)
    if (this.#members.size === 0) {
      this.#mode = 'stopped'
      return
    }
    this.#mode = 'idle'
    this.#events.waitInBackground(this.#epoll, () => {
      if (this.#members.size === 0) {
        this.#wake.clear()
        this.#mode = 'stopped'
      } else {
        this.#becomeBusy()
      }
    })
  }

  #runTurn(): void {
    this.#inTurn = true
    this.#flush()
    const count = this.#wait()
    let handled = 0
    for (let index = 0; index < count; index++) {
      const fd = this.#events.fd(index)
      // Removed in this turn, libuv's descriptor, or the wake-up: nothing of ours to do.
      const member = this.#members.get(fd)
      if (member !== undefined) {
        handled++
        member.onReady(this.#events.events(index))
      } else if (fd === this.#wake.fd) {
        this.#wake.clear()
      }
    }
    if (handled < count || handled === 0) this.#passOver = true
    this.#flush()
    this.#inTurn = false
    this.turn++
    if (handled > 0) this.#lastEvent = this.now
    if (this.#members.size === 0 || this.now - this.#lastEvent > LINGER_MS) this.#leaveBusy()
  }

  /** Number of events; sets the time. */
  #wait(): number {
    const begun = performance.now()
    let count = 0
    if (this.busyPoll.worthwhile) {
      do {
        count = this.#events.wait(this.#epoll, 0)
        if (count > 0) break
        // The one that is waited for may be waiting for this processor.
        yieldProcessor()
      } while (performance.now() - begun < this.busyPoll.limitMs)
    }
    if (count === 0) count = this.#events.wait(this.#epoll, BUSY_WAIT_MS)
    this.now = performance.now()
    this.busyPoll.waited(this.now - begun, count > 0)
    return count
  }

  /** Flushing one stream may give another one output, so it goes on until there is none. */
  #flush(): void {
    while (this.#dirty.length > 0) {
      const batch = this.#dirty
      this.#dirty = this.#flushing
      this.#flushing = batch
      for (const one of batch) one.flush()
      batch.length = 0
    }
    if (this.#unused.length > 0) {
      for (const slab of this.#unused.splice(0)) slab.release()
    }
  }
}

/**
 * The descriptor that libuv's default loop waits on, or undefined where the symbols cannot be found; the loop then
 * looks after libuv every BUSY_WAIT_MS, which is slower for flushes and otherwise the same.
 */
function libuvDescriptor(): number | undefined {
  try {
    const program = koffi.load(null)
    const loop: unknown = program.func('void *uv_default_loop()')()
    const fd = program.func('int uv_backend_fd(void *loop)')(loop) as number
    return fd >= 0 ? fd : undefined
  } catch {
    return undefined
  }
}

/** The reactor of this process. */
export const reactor = new Reactor()

/** Errno values that mean "not now" on a non-blocking socket. */
export function isWouldBlock(errno: number): boolean {
  return errno === constants.errno.EAGAIN || errno === constants.errno.EINTR
}

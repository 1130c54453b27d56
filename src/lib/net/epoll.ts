// epoll and eventfd, through koffi.
import {constants} from 'node:os'
import {lastErrno, libcFunction} from '../sys/libc.js'
import {bufferAddress} from '../sys/buffer-address.js'
import {systemError} from '../sys/system-error.js'
import {checked, closeFd, type Call} from './socket-calls.js'

export const EPOLLIN = 0x001
export const EPOLLOUT = 0x004
export const EPOLLERR = 0x008
export const EPOLLHUP = 0x010

/** The same bit as SOCK_CLOEXEC and EFD_CLOEXEC: O_CLOEXEC on every Linux platform that Node runs on. */
const CLOEXEC = 0x80000
const EFD_NONBLOCK = 0x800

const {EINTR} = constants.errno

/** struct epoll_event is packed on x86-64 only: 12 bytes there, 16 elsewhere. */
const EVENT_BYTES = process.arch === 'x64' ? 12 : 16
const EVENT_DATA = process.arch === 'x64' ? 4 : 8

const calls = {
  epollCreate: libcFunction<Call>('int epoll_create1(int flags)'),
  epollControl: libcFunction<Call>('int epoll_ctl(int epoll, int operation, int fd, const void *event)'),
  schedYield: libcFunction<Call>('int sched_yield()'),
  epollWait: libcFunction<Call>('int epoll_wait(int epoll, uintptr_t events, int most, int timeoutMs)'),
  eventfd: libcFunction<Call>('int eventfd(uint32_t initial, int flags)'),
  read: libcFunction<Call>('int64_t read(int fd, void *buffer, size_t length)'),
  write: libcFunction<Call>('int64_t write(int fd, const void *buffer, size_t length)'),
}

export function createEpoll(): number {
  return checked(calls.epollCreate(CLOEXEC), 'epoll_create1', 'opening an epoll descriptor')
}

const CONTROL = {add: 1, remove: 2, modify: 3} as const
const controlEvent = Buffer.alloc(EVENT_BYTES)

export function controlEpoll(epoll: number, operation: keyof typeof CONTROL, fd: number, events: number): void {
  controlEvent.writeUInt32LE(events, 0)
  controlEvent.writeInt32LE(fd, EVENT_DATA)
  checked(calls.epollControl(epoll, CONTROL[operation], fd, controlEvent), 'epoll_ctl', 'watching a descriptor')
}

/** Lets others run that are ready to, on this processor; returns at once when there are none. */
export function yieldProcessor(): void {
  calls.schedYield()
}

/** Where epoll_wait puts what happened. */
export class EventList {
  readonly #bytes: Buffer
  readonly #address: number

  constructor(readonly capacity: number) {
    this.#bytes = Buffer.allocUnsafeSlow(capacity * EVENT_BYTES)
    this.#address = bufferAddress(this.#bytes)
  }

  /** Number of events, 0 after `timeoutMs` or an interruption by a signal. */
  wait(epoll: number, timeoutMs: number): number {
    const count = calls.epollWait(epoll, this.#address, this.capacity, timeoutMs)
    if (count >= 0) return count
    const errno = lastErrno()
    if (errno === EINTR) return 0
    throw systemError('epoll_wait', errno, 'waiting for sockets')
  }

  /** Waits without limit on a thread of the pool, so that Node's own loop can sleep. */
  waitInBackground(epoll: number, done: () => void): void {
    // What it reports is read again by the next wait(): epoll is level-triggered here.
    calls.epollWait.async(epoll, this.#address, 1, -1, (error: Error | null) => {
      if (error !== null) throw error
      done()
    })
  }

  fd(index: number): number {
    return this.#bytes.readInt32LE(index * EVENT_BYTES + EVENT_DATA)
  }

  events(index: number): number {
    return this.#bytes.readUInt32LE(index * EVENT_BYTES)
  }
}

/** A counter that can be waited for with epoll: how one thread wakes another out of epoll_wait. */
export class EventFd {
  readonly fd = checked(calls.eventfd(0, EFD_NONBLOCK | CLOEXEC), 'eventfd', 'opening an event counter')
  readonly #value = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0])
  readonly #sink = Buffer.alloc(8)

  signal(): void {
    calls.write(this.fd, this.#value, 8)
  }

  clear(): void {
    calls.read(this.fd, this.#sink, 8)
  }

  close(): void {
    closeFd(this.fd)
  }
}

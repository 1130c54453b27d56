import {createServer, type IncomingMessage, type Server, type ServerResponse} from 'node:http'
import type {TcpAddress} from '../../lib/address.js'
import {asError, LonghornError, messageOf} from '../../lib/errors.js'
import type {Log} from '../../lib/log.js'
import {listen} from '../../protocol/grpc/listen.js'
import {ACTIONS, DIRECT_BYTES, directIoOf, intervalOf, MAX_PIECE_BYTES, PATH_PREFIX, type Action, type Interval} from './exchange.js'
import {answerFailure, answerJson, Refusal, receiveBody} from './http-answers.js'
import type {RecordedChecksum} from './recorded-checksum.js'
import type {Sink} from './sink.js'

/** As upstream's: a receiver that nobody talks to gives its port back after this time. */
const IDLE_MS = 300_000
const KEEP_ALIVE_MS = 240_000

/** A sender has a handful. */
const MAX_CONNECTIONS = 64

/** What has come of a transfer, when its last step is done and durable. */
export interface Received {
  /** False when the sender found the file identical by its recorded checksum, or gave up before it began. */
  readonly opened: boolean
  /** The sender has asked for our recorded checksum; senders do that when their own is current. */
  readonly compared: boolean
  /** What the sender says that the checksum of the whole is. */
  readonly checksum: RecordedChecksum | undefined
}

export interface ReceiverOptions {
  readonly sink: Sink
  readonly listen: TcpAddress
  readonly log: Log
  /** Told how many bytes of data have been dealt with, as they are. */
  readonly onProgress?: ((bytes: number) => void) | undefined
  readonly idleMs?: number
}

/**
 * A server for the transfer of one file (exchange.ts), which ends with it. That a sender has closed it does not say that it has sent
 * everything: senders close after a failure as well. Whoever started the sender knows.
 */
export class Receiver {
  readonly #sink: Sink
  readonly #log: Log
  readonly #server: Server
  readonly #onProgress: (bytes: number) => void
  readonly #idle: NodeJS.Timeout
  readonly #done = new Outcome()
  /** Requests that are being carried out, each with what is to be destroyed to break it off. */
  readonly #active = new Map<Promise<void>, IncomingMessage>()
  /** The size that it was opened with, in bytes. */
  #sizeBytes: number | undefined
  #opening: Promise<boolean> | undefined
  #compared = false
  #ending: Promise<Received> | undefined
  /** Why nothing more is taken. */
  #failure: Error | undefined
  #port = 0

  private constructor({sink, log, onProgress = () => undefined, idleMs = IDLE_MS}: ReceiverOptions) {
    this.#sink = sink
    this.#log = log
    this.#onProgress = onProgress
    this.#server = createServer({keepAliveTimeout: KEEP_ALIVE_MS}, (request, response) => this.#track(request, this.#handle(request, response)))
    this.#server.maxConnections = MAX_CONNECTIONS
    this.#idle = setTimeout(() => this.destroy(new LonghornError('TIMEOUT', `nobody has sent anything for ${idleMs / 1000} s`)), idleMs)
    this.#idle.unref()
  }

  /** Throws CONFLICT when the port is taken. */
  static async start(options: ReceiverOptions): Promise<Receiver> {
    const receiver = new Receiver(options)
    try {
      receiver.#port = ((await listen(receiver.#server, options.listen)) as TcpAddress).port
    } catch (error) {
      clearTimeout(receiver.#idle)
      throw error
    }
    return receiver
  }

  get port(): number {
    return this.#port
  }

  /** Resolves when the sender has closed it and all is durable; rejects with what failed first. */
  get done(): Promise<Received> {
    return this.#done.promise
  }

  /** For who knows that the sender has ended: finishes as if it had closed it, unless it has. Rejects as `done` does. */
  finish(): Promise<Received> {
    return this.#end(undefined)
  }

  /** Ends it in the middle; the file stays as it is. Safe twice and after the end. */
  destroy(reason: Error): void {
    this.#fail(reason)
    this.#stop()
    void Promise.allSettled([...this.#active.keys(), this.#ending]).then(() => this.#sink.abandon())
  }

  #track(request: IncomingMessage, handled: Promise<void>): void {
    this.#active.set(handled, request)
    void handled.finally(() => this.#active.delete(handled))
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.#idle.refresh()
    try {
      const {pathname, searchParams} = new URL(request.url ?? '', 'http://receiver')
      await this.#act(toAction(pathname, request.method), searchParams, request, response)
    } catch (error) {
      // A sender that is cut off in the middle of a request sends it again, or has ended.
      const ours = error instanceof LonghornError || error instanceof Refusal
      if (!ours && request.destroyed && !request.complete) this.#log.info({reason: messageOf(error)}, 'the sender broke off a request')
      else this.#refused(error, response)
    }
  }

  #refused(error: unknown, response: ServerResponse): void {
    const reason = asError(error)
    this.#log.warn({err: reason}, 'a request of the sender failed')
    // A refused request changes nothing; after a failure of the disk there is no going on.
    const refusal = reason instanceof Refusal || (reason instanceof LonghornError && ['LH_USAGE', 'LH_CONFLICT'].includes(reason.code))
    if (!refusal) this.#fail(reason)
    answerFailure(response, reason)
  }

  async #act(action: Action, query: URLSearchParams, request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (action === 'close') {
      const method = query.get('checksumMethod') ?? ''
      const checksum = query.get('checksum') ?? ''
      await this.#end(method !== '' && checksum !== '' ? {method, checksum} : undefined, response)
      return
    }
    if (this.#failure !== undefined) throw new Refusal(409, `the transfer has failed: ${this.#failure.message}`)
    if (this.#ending !== undefined) throw new Refusal(409, 'the transfer is over')
    if (action === 'getRecordedMetadata') {
      this.#compared = true
      answerJson(response, await this.#recorded())
    } else if (action === 'open') {
      answerJson(response, JSON.stringify(await this.#open(intervalOf(query), directIoOf(query))))
    } else {
      await this.#transfer(action, this.#within(intervalOf(query)), request, response)
    }
  }

  async #transfer(action: 'sendHole' | 'getChecksum' | 'writeData', interval: Interval, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const existed = await this.#opening
    const length = interval.end - interval.begin
    if (action === 'sendHole') {
      if (length > 0) await this.#sink.punch(interval)
      answerJson(response, '')
      return
    }
    if (length > MAX_PIECE_BYTES) throw new Refusal(413, `${action} of ${length} bytes: at most ${MAX_PIECE_BYTES} at a time`)
    if (action === 'getChecksum') {
      const checksum = await this.#sink.checksum(interval)
      answerJson(response, JSON.stringify(checksum === undefined ? null : checksum.toString('base64')))
      if (existed === true) this.#onProgress(length)
      return
    }
    const received = await receiveBody(request, length, (data, at) => this.#sink.write(data, interval.begin + at))
    if (received !== length) throw new LonghornError('USAGE', `writeData of ${length} bytes came with ${received}`)
    answerJson(response, '')
    if (existed !== true) this.#onProgress(length)
  }

  /** Missing is 404 and outdated 500, as upstream's senders expect; either way they go on with the data. */
  async #recorded(): Promise<string> {
    try {
      return await this.#sink.recorded()
    } catch (error) {
      if (!(error instanceof LonghornError)) throw error
      throw new Refusal(error.code === 'LH_NOT_FOUND' ? 404 : 409, error.message)
    }
  }

  #open({begin, end: size}: Interval, directIo: boolean): Promise<boolean> {
    if (begin !== 0) throw new LonghornError('USAGE', `open with begin=${begin}: expected 0`)
    if (directIo && size % DIRECT_BYTES !== 0) throw new LonghornError('USAGE', `open of ${size} bytes with direct I/O: expected a multiple of ${DIRECT_BYTES}`)
    if (size > this.#sink.maxBytes) throw new LonghornError('USAGE', `open of ${size} bytes: at most ${this.#sink.maxBytes} can be received here`)
    // A sender that has not got the answer asks again.
    if (this.#sizeBytes !== undefined && this.#sizeBytes !== size) throw new LonghornError('CONFLICT', `open of ${size} bytes: it is open with ${this.#sizeBytes}`)
    this.#sizeBytes = size
    return (this.#opening ??= this.#sink.open(size))
  }

  /** The part of the interval that is in the file: of one that does not end with a block, upstream announces the last extent as longer than it is. */
  #within({begin, end}: Interval): Interval {
    const size = this.#sizeBytes
    if (size === undefined) throw new LonghornError('CONFLICT', 'the transfer has not been opened')
    if (begin <= size && end <= Math.ceil(size / DIRECT_BYTES) * DIRECT_BYTES) return {begin, end: Math.max(begin, Math.min(end, size))}
    throw new LonghornError('USAGE', `bytes ${begin} to ${end} are not in a file of ${size}`)
  }

  #end(checksum: RecordedChecksum | undefined, response?: ServerResponse): Promise<Received> {
    this.#ending ??= this.#finish(checksum)
    const answered = this.#ending.then(received => {
      if (response !== undefined) answerJson(response, '')
      return received
    })
    answered.then(
      () => this.#stop(response),
      () => this.#stop(response),
    )
    return answered
  }

  async #finish(checksum: RecordedChecksum | undefined): Promise<Received> {
    clearTimeout(this.#idle)
    // A sender that closes has ended all other requests or given them up. The closing one is not among them yet.
    const others = [...this.#active]
    for (const [, request] of others) request.destroy()
    try {
      await Promise.allSettled(others.map(([handled]) => handled))
      if (this.#failure !== undefined) throw this.#failure
      await this.#opening
      if (this.#opening !== undefined) await this.#sink.finish()
      const received = {opened: this.#opening !== undefined, compared: this.#compared, checksum}
      this.#done.resolve(received)
      return received
    } catch (error) {
      this.#fail(asError(error))
      await this.#sink.abandon()
      throw error
    }
  }

  #fail(reason: Error): void {
    this.#failure ??= reason
    this.#done.reject(reason)
  }

  /** Stops listening and ends the connections, the one of `last` when that has been answered. */
  #stop(last?: ServerResponse): void {
    clearTimeout(this.#idle)
    this.#server.close()
    if (last === undefined || last.writableFinished || last.destroyed) this.#server.closeAllConnections()
    else last.once('close', () => this.#server.closeAllConnections())
  }
}

/** A promise that is settled from outside, and that nobody has to wait for. */
class Outcome {
  resolve!: (received: Received) => void
  reject!: (reason: Error) => void
  readonly promise = new Promise<Received>((resolve, reject) => {
    this.resolve = resolve
    this.reject = reject
  })

  constructor() {
    this.promise.catch(() => undefined)
  }
}

function toAction(path: string, method: string | undefined): Action {
  const name = path.startsWith(PATH_PREFIX) ? path.slice(PATH_PREFIX.length) : ''
  if (!Object.hasOwn(ACTIONS, name)) throw new Refusal(404, `there is no ${JSON.stringify(path.slice(0, 64))} here`)
  const action = name as Action
  if (method !== ACTIONS[action]) throw new Refusal(405, `${action} is a ${ACTIONS[action]}`)
  return action
}

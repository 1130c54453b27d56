import {Agent, request as httpRequest} from 'node:http'
import {setTimeout as sleep} from 'node:timers/promises'
import {formatHostPort, type TcpAddress} from '../../lib/address.js'
import {isKind, LonghornError, messageOf} from '../../lib/errors.js'
import {ACTIONS, PATH_PREFIX, type Action, type Interval} from './exchange.js'

/** How often and how patiently is tried again. Milliseconds. */
export interface Patience {
  /** A receiver is given this long to begin to listen. */
  readonly openMs: number
  readonly openDelayMs: number
  readonly attempts: number
  /** Between attempts, doubled each time up to the longest. */
  readonly delayMs: number
  readonly longestDelayMs: number
}

/** Upstream's. */
export const PATIENCE: Patience = {openMs: 120_000, openDelayMs: 1000, attempts: 6, delayMs: 2000, longestDelayMs: 30_000}

export interface ClientOptions {
  readonly to: TcpAddress
  /** For each request. */
  readonly timeoutMs: number
  readonly patience?: Patience
  readonly signal: AbortSignal
}

/** An answer is a checksum file at most. */
const MAX_ANSWER_BYTES = 256 * 1024

interface Answer {
  readonly status: number
  readonly text: string
}

/** Requests to one receiver. They reject with UNREACHABLE or TIMEOUT, with what the status means, or with the signal's reason. */
export class ExchangeClient {
  readonly #options: ClientOptions
  readonly #patience: Patience
  readonly #agent = new Agent({keepAlive: true, maxSockets: 8})
  readonly #peer: string

  constructor(options: ClientOptions) {
    this.#options = options
    this.#patience = options.patience ?? PATIENCE
    this.#peer = `receiver ${formatHostPort(options.to)}`
  }

  /** Resolves to whether the receiver had the file. Tried again until somebody listens there. */
  async open(sizeBytes: number, directIo: boolean): Promise<boolean> {
    const query = {begin: '0', end: `${sizeBytes}`, directIO: `${directIo}`}
    const deadline = performance.now() + this.#patience.openMs
    for (;;) {
      try {
        const {text} = this.#expectOk('open', await this.#ask('open', query))
        if (text.trim() === 'true') return true
        if (text.trim() === 'false') return false
        throw new LonghornError('PROTOCOL', `${this.#peer}: open was answered with ${JSON.stringify(text.slice(0, 64))}, not with true or false`)
      } catch (error) {
        if (!isUnanswered(error) || performance.now() > deadline) throw error
      }
      await this.#pause(this.#patience.openDelayMs)
    }
  }

  async sendHole(interval: Interval): Promise<void> {
    await this.#persist('sendHole', range(interval))
  }

  async writeData(interval: Interval, data: Buffer): Promise<void> {
    await this.#persist('writeData', range(interval), data)
  }

  /** The SHA-512 of what the receiver has there; undefined when it is not all data. */
  async checksum(interval: Interval): Promise<Buffer | undefined> {
    const {text} = await this.#persist('getChecksum', range(interval))
    const match = /^\s*(?:null|"([A-Za-z\d+/]*={0,2})")\s*$/.exec(text)
    if (match === null) throw new LonghornError('PROTOCOL', `${this.#peer}: getChecksum was answered with ${JSON.stringify(text.slice(0, 64))}`)
    return match[1] === undefined ? undefined : Buffer.from(match[1], 'base64')
  }

  /** The text of the receiver's recorded checksum. Undefined when it has none that is current. Asked once: the data is sent when in doubt. */
  async recordedMetadata(): Promise<string | undefined> {
    const {status, text} = await this.#ask('getRecordedMetadata', {})
    return status === 200 ? text : undefined
  }

  /**
   * The last request, also after the others were given up. Our receivers sync all of the file before they answer. Upstream's begin to
   * answer at once and may end the connection before they are through with it, so that is an answer as well.
   */
  async close(checksum: {method: string; checksum: string} | undefined, timeoutMs: number): Promise<void> {
    const query = {checksumMethod: checksum?.method ?? '', checksum: checksum?.checksum ?? ''}
    try {
      this.#expectOk('close', await this.#ask('close', query, undefined, {signal: new AbortController().signal, timeoutMs}))
    } catch (error) {
      if (!isKind(error, 'UNREACHABLE')) throw error
    }
  }

  /** Ends its connections. */
  destroy(): void {
    this.#agent.destroy()
  }

  async #persist(action: Action, query: Record<string, string>, body?: Buffer): Promise<Answer> {
    let delayMs = this.#patience.delayMs
    for (let attempt = 1; ; attempt++) {
      try {
        return this.#expectOk(action, await this.#ask(action, query, body))
      } catch (error) {
        if (!(isUnanswered(error) || error instanceof TryAgain) || attempt >= this.#patience.attempts) throw error
      }
      await this.#pause(delayMs)
      delayMs = Math.min(2 * delayMs, this.#patience.longestDelayMs)
    }
  }

  async #pause(ms: number): Promise<void> {
    const {signal} = this.#options
    await sleep(ms, undefined, {signal}).catch(() => signal.throwIfAborted())
  }

  #expectOk(action: Action, answer: Answer): Answer {
    const {status, text} = answer
    if (status === 200) return answer
    const message = `${this.#peer}: ${action} was answered with ${status} (${text.trim().slice(0, 500)})`
    if (status === 507) throw new LonghornError('NO_SPACE', message)
    if (status >= 300 && status < 500 && status !== 429) throw new LonghornError('PROTOCOL', message)
    throw new TryAgain('IO', message)
  }

  async #ask(action: Action, query: Record<string, string>, body?: Buffer, {signal, timeoutMs}: {signal: AbortSignal; timeoutMs: number} = this.#options): Promise<Answer> {
    signal.throwIfAborted()
    const timeout = AbortSignal.timeout(timeoutMs)
    try {
      return await this.#send(action, query, body, AbortSignal.any([signal, timeout]))
    } catch (error) {
      signal.throwIfAborted()
      if (error instanceof LonghornError) throw error
      if (timeout.aborted) throw new LonghornError('TIMEOUT', `${this.#peer}: ${action} took longer than ${timeoutMs / 1000} s`, {}, {cause: error})
      throw new LonghornError('UNREACHABLE', `${this.#peer}: ${action}: ${messageOf(error)}`, {}, {cause: error})
    }
  }

  #send(action: Action, query: Record<string, string>, body: Buffer | undefined, signal: AbortSignal): Promise<Answer> {
    const {host, port} = this.#options.to
    const path = `${PATH_PREFIX}${action}?${new URLSearchParams(query).toString()}`
    const headers = {Accept: 'application/json', 'Content-Length': body?.length ?? 0}
    return new Promise((resolve, reject) => {
      const request = httpRequest({host: host === '' ? '127.0.0.1' : host, port, path, method: ACTIONS[action], agent: this.#agent, signal, headers}, response => {
        let text = ''
        response.setEncoding('utf8')
        response.on('data', (chunk: string) => {
          text += chunk
          if (text.length > MAX_ANSWER_BYTES) response.destroy(new LonghornError('PROTOCOL', `${this.#peer}: the answer to ${action} is too long`))
        })
        response.on('end', () => resolve({status: response.statusCode ?? 0, text}))
        response.on('error', reject)
        response.on('aborted', () => reject(new Error('the connection ended in the middle of the answer')))
      })
      request.on('error', reject)
      request.end(body)
    })
  }
}

/** An answer that may be another one next time. */
class TryAgain extends LonghornError {}

function isUnanswered(error: unknown): boolean {
  return error instanceof LonghornError && (error.code === 'LH_UNREACHABLE' || error.code === 'LH_TIMEOUT')
}

function range({begin, end}: Interval): Record<string, string> {
  return {begin: `${begin}`, end: `${end}`}
}

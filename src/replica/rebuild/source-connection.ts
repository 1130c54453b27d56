import type {TcpAddress} from '../../lib/address.js'
import {LonghornError} from '../../lib/errors.js'
import {connectSocket} from '../../lib/net/connect.js'
import type {Slab} from '../../lib/net/slab.js'
import {Io, MAX_IO_BYTES, OP, type Extent} from '../../protocol/block-device.js'
import {decodeExtents} from '../../protocol/extents.js'
import {DIGEST_BYTES, FRAME} from '../../protocol/frame.js'
import {FrameClient, type FrameClientOwner} from '../../protocol/frame-client.js'
import type {Hello} from '../../protocol/hello.js'

const CONNECT_TIMEOUT_MS = 5000
/** A source that says nothing for this long is given up; it may have to read from a slow disk. */
const ANSWER_TIMEOUT_MS = 30_000
const SWEEP_MS = 1000
/** The longest range of one BLOCK_STATUS. */
const MAX_STATUS_BYTES = 0xffff_f000

/** A connection to the data port of a replica that has what is asked for: a frozen layer, or the volume under one. */
export class SourceConnection implements FrameClientOwner {
  readonly #client: FrameClient
  readonly #timer: NodeJS.Timeout
  #lost: Error | undefined

  private constructor(
    fd: number,
    readonly peer: string,
  ) {
    this.#client = new FrameClient(fd, this, peer, ANSWER_TIMEOUT_MS)
    this.#timer = setInterval(() => this.#client.sweep(), SWEEP_MS)
    this.#timer.unref()
  }

  /** `control`: the address of its control service; data is on the port after it. Throws UNREACHABLE, TIMEOUT, CONFLICT. */
  static async open(control: TcpAddress, hello: Hello, signal: AbortSignal): Promise<SourceConnection> {
    const fd = await connectSocket({...control, port: control.port + 1}, CONNECT_TIMEOUT_MS, signal)
    const connection = new SourceConnection(fd, `replica tcp://${control.host}:${control.port}`)
    try {
      await within(ANSWER_TIMEOUT_MS, connection.#client.hello(hello), connection.peer)
      return connection
    } catch (error) {
      connection.close()
      throw error
    }
  }

  /** Requests in flight. */
  get load(): number {
    return this.#client.inFlight
  }

  /** Why it cannot be used any more. */
  get lost(): Error | undefined {
    return this.#lost
  }

  /** Reads into `target` from `start`. Throws IO, or why the connection ended. */
  async read(target: Buffer, start: number, length: number, offset: number): Promise<void> {
    const parts: Promise<void>[] = []
    for (let done = 0; done < length; done += MAX_IO_BYTES) {
      const bytes = Math.min(MAX_IO_BYTES, length - done)
      parts.push(
        this.#ask(FRAME.READ, OP.READ, offset + done, bytes, (slab, from, got) => {
          if (got !== bytes) throw new LonghornError('PROTOCOL', `${this.peer}: answered ${got} bytes to a read of ${bytes}`)
          slab.buffer.copy(target, start + done, from, from + bytes)
        }),
      )
    }
    const results = await Promise.allSettled(parts)
    for (const result of results) if (result.status === 'rejected') throw result.reason
  }

  /** The digest of a region; see digestRegion(). */
  digest(offset: number, length: number): Promise<Buffer> {
    return this.#ask(FRAME.DIGEST, OP.BLOCK_STATUS, offset, length, (slab, from, got) => {
      if (got !== DIGEST_BYTES) throw new LonghornError('PROTOCOL', `${this.peer}: a digest of ${got} bytes`)
      return Buffer.from(slab.buffer.subarray(from, from + got))
    })
  }

  /** Where it has data, from `offset` on; covers at least a part of the range. */
  extents(offset: number, length: number): Promise<Extent[]> {
    const bytes = Math.min(length, MAX_STATUS_BYTES)
    return this.#ask(FRAME.BLOCK_STATUS, OP.BLOCK_STATUS, offset, bytes, (slab, from, got) => decodeExtents(slab.buffer, from, got, offset, bytes))
  }

  /** Safe twice. */
  close(): void {
    clearInterval(this.#timer)
    this.#client.close(new LonghornError('INTERRUPTED', `${this.peer}: the connection is not needed any more`))
  }

  onReply(_client: FrameClient, io: Io, error: number, text: string, slab: Slab | undefined, start: number, length: number): void {
    ;(io as Question<unknown>).answered(error, text, slab, start, length)
  }

  onLost(_client: FrameClient, reason: Error, unanswered: Io[]): void {
    this.#lost = reason
    clearInterval(this.#timer)
    for (const io of unanswered) (io as Question<unknown>).reject(reason)
  }

  #ask<T>(type: number, op: typeof OP.READ | typeof OP.BLOCK_STATUS, offset: number, length: number, take: Take<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.#lost !== undefined) {
        reject(this.#lost)
        return
      }
      const question = new Question(this.peer, resolve, reject, take)
      question.op = op
      question.offset = offset
      question.length = length
      question.startedAt = performance.now()
      this.#client.request(type, question)
    })
  }
}

type Take<T> = (slab: Slab, start: number, length: number) => T

class Question<T> extends Io {
  constructor(
    readonly peer: string,
    readonly resolve: (value: T) => void,
    readonly reject: (reason: Error) => void,
    readonly take: Take<T>,
  ) {
    super()
  }

  answered(error: number, text: string, slab: Slab | undefined, start: number, length: number): void {
    if (error !== 0) {
      this.reject(new LonghornError('IO', `${this.peer}: ${text}`))
      return
    }
    try {
      this.resolve(this.take(slab!, start, length))
    } catch (failure) {
      this.reject(failure as Error)
    }
  }

  override onData(): void {
    throw new Error('answered() takes the data')
  }

  override onDone(): void {
    throw new Error('answered() ends it')
  }
}

async function within<T>(ms: number, work: Promise<T>, peer: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new LonghornError('TIMEOUT', `${peer}: no answer for ${ms} ms`)), ms)
  })
  try {
    return await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
  }
}

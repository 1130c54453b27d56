// The volume through the frontend `socket` with this program's own client: where no other client is installed.
import {createHash} from 'node:crypto'
import {setTimeout as sleep} from 'node:timers/promises'
import {LonghornError} from '../../src/lib/errors.js'
import {connectSocket} from '../../src/lib/net/connect.js'
import {reactor} from '../../src/lib/net/reactor.js'
import {slabs, SLAB_BYTES, type Slab} from '../../src/lib/net/slab.js'
import {Io, MAX_IO_BYTES, OP, type Op} from '../../src/protocol/block-device.js'
import {FRAME} from '../../src/protocol/frame.js'
import {FrameClient, type FrameClientOwner} from '../../src/protocol/frame-client.js'

const CONNECT_TIMEOUT_MS = 5000
const ANSWER_TIMEOUT_MS = 30_000
const SWEEP_MS = 1000
/** Read at a time: several requests in flight keep the other side busy. */
const READ_BYTES = 16 * MAX_IO_BYTES

/** One connection, with a promise per request: simple, and fast enough for a few hundred megabytes. */
export class VolumeSocket implements FrameClientOwner {
  readonly #client: FrameClient
  readonly #sweeper: NodeJS.Timeout
  #lost: Error | undefined

  private constructor(fd: number) {
    this.#client = new FrameClient(fd, this, 'engine', ANSWER_TIMEOUT_MS)
    this.#sweeper = setInterval(() => this.#client.sweep(), SWEEP_MS)
  }

  static async connect(path: string, signal: AbortSignal): Promise<VolumeSocket> {
    return new VolumeSocket(await connectSocket({kind: 'unix', path}, CONNECT_TIMEOUT_MS, signal))
  }

  async read(offset: number, length: number): Promise<Buffer> {
    const data = Buffer.allocUnsafe(length)
    await Promise.all(
      piecesOf(length).map(([at, size]) => this.#ask(OP.READ, offset + at, size, data.subarray(at, at + size), io => this.#client.request(FRAME.READ, io))),
    )
    return data
  }

  async write(offset: number, data: Buffer): Promise<void> {
    const writes: Promise<void>[] = []
    for (let start = 0; start < data.length; start += SLAB_BYTES) {
      const slab = slabs.take()
      const length = data.copy(slab.buffer, 0, start, Math.min(start + SLAB_BYTES, data.length))
      for (const [at, size] of piecesOf(length)) {
        writes.push(this.#ask(OP.WRITE, offset + start + at, size, undefined, io => this.#client.write(FRAME.WRITE, io, slab, at)))
      }
      reactor.releaseAfterFlush(slab)
    }
    await Promise.all(writes)
  }

  /** What was written survives a power cut. */
  async flush(): Promise<void> {
    await this.#ask(OP.FLUSH, 0, 0, undefined, io => this.#client.request(FRAME.FLUSH, io))
  }

  /** The SHA-256 of the whole volume. `onRead` hears how far it is. */
  async hash(sizeBytes: number, signal: AbortSignal, onRead: (bytes: number) => void): Promise<string> {
    const hash = createHash('sha256')
    for (let offset = 0; offset < sizeBytes; offset += READ_BYTES) {
      signal.throwIfAborted()
      hash.update(await this.read(offset, Math.min(READ_BYTES, sizeBytes - offset)))
      onRead(offset)
      // Hashing takes the processor; signals want to be heard, too.
      await sleep(0)
    }
    return hash.digest('hex')
  }

  close(): void {
    clearInterval(this.#sweeper)
    this.#client.close(new LonghornError('INTERRUPTED', 'closed'))
  }

  onReply(_client: FrameClient, io: Io, error: number, _text: string, slab: Slab | undefined, start: number, length: number): void {
    if (error === 0 && io.op === OP.READ && length === io.length) io.onData(slab!, start)
    io.onDone(error !== 0 || io.op !== OP.READ || length === io.length ? error : -1)
  }

  onLost(_client: FrameClient, reason: Error, unanswered: Io[]): void {
    this.#lost = reason
    for (const io of unanswered) io.onDone(-1)
  }

  async #ask(op: Op, offset: number, length: number, target: Buffer | undefined, send: (io: Io) => void): Promise<void> {
    if (this.#lost !== undefined) throw this.#lost
    const error = await new Promise<number>(resolve => {
      const io = new PromisedIo(target, resolve)
      io.op = op
      io.offset = offset
      io.length = length
      io.startedAt = reactor.now
      send(io)
    })
    if (error !== 0) throw this.#lost ?? new LonghornError('IO', `the volume answered with error ${error} at byte ${offset}`)
  }
}

class PromisedIo extends Io {
  readonly #target: Buffer | undefined
  readonly #resolve: (error: number) => void

  constructor(target: Buffer | undefined, resolve: (error: number) => void) {
    super()
    this.#target = target
    this.#resolve = resolve
  }

  override onData(slab: Slab, start: number): void {
    if (this.#target !== undefined) slab.buffer.copy(this.#target, 0, start, start + this.#target.length)
  }

  override onDone(error: number): void {
    this.#resolve(error)
  }
}

/** Offsets and lengths of requests that make up `length` bytes. */
function piecesOf(length: number): [number, number][] {
  const pieces: [number, number][] = []
  for (let at = 0; at < length; at += MAX_IO_BYTES) pieces.push([at, Math.min(MAX_IO_BYTES, length - at)])
  return pieces
}

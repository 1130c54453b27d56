// The data protocol as the reference describes it, written without our codec: what tests compare it with.
import type {Socket} from 'node:net'

export interface Frame {
  readonly magic: number
  readonly sequence: number
  readonly type: number
  readonly offset: bigint
  readonly size: number
  readonly payload: Buffer
}

export const HEADER_BYTES = 26

/** A frame, or with `payloadLength` a header that lies about its payload. */
export function encodeFrame(frame: Partial<Frame> & {payloadLength?: number}): Buffer {
  const {magic = 0x1b01, sequence = 0, type = 0, offset = 0n, size = 0, payload = Buffer.alloc(0)} = frame
  const header = Buffer.alloc(HEADER_BYTES)
  header.writeUInt16LE(magic, 0)
  header.writeUInt32LE(sequence, 2)
  header.writeUInt32LE(type, 6)
  header.writeBigInt64LE(offset, 10)
  header.writeUInt32LE(size, 18)
  header.writeUInt32LE(frame.payloadLength ?? payload.length, 22)
  return Buffer.concat([header, payload])
}

/** The other end of a connection, frame by frame. */
export class FramePeer {
  /** Set when the connection has ended. */
  ended = false
  readonly #frames: Frame[] = []
  #input: Buffer[] = []
  #bytes = 0
  #wake: () => void = () => undefined

  constructor(readonly socket: Socket) {
    socket.on('data', (chunk: Buffer) => {
      this.#input.push(chunk)
      this.#bytes += chunk.length
      this.#parse()
    })
    socket.on('error', () => undefined)
    for (const event of ['end', 'close']) {
      socket.on(event, () => {
        this.ended = true
        this.#wake()
      })
    }
  }

  send(frame: Parameters<typeof encodeFrame>[0]): void {
    this.socket.write(encodeFrame(frame))
  }

  /** The next frame that arrives. Throws when the connection ends before. */
  async next(timeoutMs = 60_000): Promise<Frame> {
    const deadline = performance.now() + timeoutMs
    for (;;) {
      const frame = this.#frames.shift()
      if (frame !== undefined) return frame
      if (this.ended) throw new Error('the connection has ended')
      await this.#change(deadline - performance.now())
    }
  }

  /** Waits for the end of the connection; frames that come before are dropped. */
  async end(timeoutMs = 60_000): Promise<void> {
    const deadline = performance.now() + timeoutMs
    while (!this.ended) await this.#change(deadline - performance.now())
  }

  /** Frames that have arrived and were not asked for with next(). */
  get waiting(): number {
    return this.#frames.length
  }

  async #change(timeoutMs: number): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('nothing arrives')), Math.max(0, timeoutMs))
      this.#wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }

  #parse(): void {
    for (;;) {
      if (this.#bytes < HEADER_BYTES) return
      if (this.#input[0]!.length < HEADER_BYTES) this.#input = [Buffer.concat(this.#input)]
      const header = this.#input[0]!
      const total = HEADER_BYTES + header.readUInt32LE(22)
      if (this.#bytes < total) return
      const all = this.#input.length === 1 ? header : Buffer.concat(this.#input)
      this.#frames.push({
        magic: all.readUInt16LE(0),
        sequence: all.readUInt32LE(2),
        type: all.readUInt32LE(6),
        offset: all.readBigInt64LE(10),
        size: all.readUInt32LE(18),
        payload: all.subarray(HEADER_BYTES, total),
      })
      this.#bytes -= total
      this.#input = this.#bytes === 0 ? [] : [all.subarray(total)]
      this.#wake()
    }
  }
}

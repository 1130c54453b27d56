import {reactor} from '../../src/lib/net/reactor.js'
import {slabs, type Slab} from '../../src/lib/net/slab.js'
import {Io, OP, type BlockDevice, type Op} from '../../src/protocol/block-device.js'

export interface Answer {
  readonly error: number
  /** What a READ has read; empty for everything else. */
  readonly data: Buffer
}

/** A request that a test waits for. */
export class Request extends Io {
  data: Buffer = Buffer.alloc(0)
  /** How often it was finished: once is right. */
  answers = 0
  readonly answered: Promise<Answer>
  #resolve!: (answer: Answer) => void

  constructor(op: Op, offset = 0, length = 0, flags: {readonly fua?: boolean; readonly noUnmap?: boolean} = {}) {
    super()
    this.op = op
    this.offset = offset
    this.length = length
    this.fua = flags.fua ?? false
    this.noUnmap = flags.noUnmap ?? false
    this.answered = new Promise(resolve => {
      this.#resolve = resolve
    })
  }

  override onData(slab: Slab, start: number): void {
    this.data = Buffer.from(slab.buffer.subarray(start, start + this.length))
  }

  override onDone(error: number): void {
    this.answers++
    this.#resolve({error, data: this.data})
  }
}

/** Lends `data` to `use` in a slab that is somebody else's after this turn, as a stream's is. */
export function withSlab<T>(data: Buffer, use: (slab: Slab, start: number) => T): T {
  const slab = slabs.take()
  const start = 64
  data.copy(slab.buffer, start)
  const result = use(slab, start)
  reactor.releaseAfterFlush(slab)
  return result
}

export function submitWrite(device: BlockDevice, offset: number, data: Buffer, flags?: {readonly fua?: boolean}): Request {
  const io = new Request(OP.WRITE, offset, data.length, flags)
  withSlab(data, (slab, start) => device.submit(io, slab, start))
  return io
}

export function submit(device: BlockDevice, op: Op, offset = 0, length = 0, flags?: {readonly fua?: boolean; readonly noUnmap?: boolean}): Request {
  const io = new Request(op, offset, length, flags)
  device.submit(io)
  return io
}

export async function read(device: BlockDevice, offset: number, length: number): Promise<Buffer> {
  const {error, data} = await submit(device, OP.READ, offset, length).answered
  if (error !== 0) throw new Error(`read of ${length} bytes at ${offset}: errno ${error}`)
  return data
}

export function write(device: BlockDevice, offset: number, data: Buffer, flags?: {readonly fua?: boolean}): Promise<Answer> {
  return submitWrite(device, offset, data, flags).answered
}

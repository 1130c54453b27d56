import {LonghornError} from '../lib/errors.js'
import type {Slab} from '../lib/net/slab.js'
import {Io, OP, type Extent} from '../protocol/block-device.js'
import {decodeExtents} from '../protocol/extents.js'
import {FRAME} from '../protocol/frame.js'
import type {ReplicaLink} from './replica-link.js'

/** Asks one replica what is allocated in a range. Throws IO or PROTOCOL. */
export function askBlockStatus(link: ReplicaLink, offset: number, length: number): Promise<Extent[]> {
  return new Promise((resolve, reject) => {
    const io = new StatusIo(link.address, offset, length, resolve, reject)
    link.client.request(FRAME.BLOCK_STATUS, io)
  })
}

/** A question for block status on its way to one replica. */
export class StatusIo extends Io {
  constructor(
    readonly replica: string,
    offset: number,
    length: number,
    readonly resolve: (extents: Extent[]) => void,
    readonly reject: (reason: Error) => void,
  ) {
    super()
    this.op = OP.BLOCK_STATUS
    this.offset = offset
    this.length = length
    this.startedAt = performance.now()
  }

  /** The answer: `bytes` of payload at `start`. */
  onExtents(slab: Slab, start: number, bytes: number): void {
    try {
      this.resolve(decodeExtents(slab.buffer, start, bytes, this.offset, this.length))
    } catch (error) {
      this.reject(error as Error)
    }
  }

  override onData(): void {
    throw new Error('block status has no data')
  }

  override onDone(error: number): void {
    if (error !== 0) this.reject(new LonghornError('IO', `replica ${this.replica}: cannot tell what is allocated`))
  }
}

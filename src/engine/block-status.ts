import {LonghornError} from '../lib/errors.js'
import type {Slab} from '../lib/net/slab.js'
import type {Extent} from '../protocol/block-device.js'
import {decodeExtents} from '../protocol/extents.js'
import {FRAME} from '../protocol/frame.js'
import {DirectIo} from './direct-io.js'
import type {ReplicaLink} from './replica-link.js'

/** Asks one replica what is allocated in a range. Throws IO or PROTOCOL. */
export function askBlockStatus(link: ReplicaLink, offset: number, length: number): Promise<Extent[]> {
  return new Promise((resolve, reject) => {
    link.client.request(FRAME.BLOCK_STATUS, new StatusIo(link.address, offset, length, resolve, reject))
  })
}

class StatusIo extends DirectIo {
  constructor(
    readonly replica: string,
    offset: number,
    length: number,
    readonly resolve: (extents: Extent[]) => void,
    readonly reject: (reason: Error) => void,
  ) {
    super(offset, length)
  }

  override onAnswer(error: number, _text: string, slab: Slab | undefined, start: number, bytes: number): void {
    if (error !== 0) {
      this.#refused()
      return
    }
    try {
      this.resolve(decodeExtents(slab!.buffer, start, bytes, this.offset, this.length))
    } catch (wrong) {
      this.reject(wrong as Error)
    }
  }

  override onLost(): void {
    this.#refused()
  }

  #refused(): void {
    this.reject(new LonghornError('IO', `replica ${this.replica}: cannot tell what is allocated`))
  }
}

import type {Slab} from '../lib/net/slab.js'
import {OP, type BlockDevice, type Extent, type Io} from '../protocol/block-device.js'

/**
 * A device whose discarded ranges read as zeros. A loop device has only TRIM to say "make this zero", and a discard of a volume
 * leaves alone what a snapshot holds: file systems would find old data where they wrote zeros. Space is given back
 * wherever a discard would give it back.
 */
export class TrimAsZeroes implements BlockDevice {
  readonly #device: BlockDevice

  constructor(device: BlockDevice) {
    this.#device = device
  }

  get sizeBytes(): number {
    return this.#device.sizeBytes
  }

  submit(io: Io, slab?: Slab, start?: number): void {
    if (io.op === OP.DISCARD) {
      io.op = OP.WRITE_ZEROES
      io.noUnmap = false
    }
    this.#device.submit(io, slab, start)
  }

  blockStatus(offset: number, length: number): Promise<Extent[]> {
    return this.#device.blockStatus(offset, length)
  }
}

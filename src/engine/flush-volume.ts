import {LonghornError} from '../lib/errors.js'
import {Io, OP, type BlockDevice} from '../protocol/block-device.js'

/** Resolves when everything written before survives a power cut. Throws IO. */
export function flushVolume(device: BlockDevice): Promise<void> {
  return new Promise((resolve, reject) => {
    device.submit(new FlushIo(resolve, reject))
  })
}

class FlushIo extends Io {
  constructor(
    readonly resolve: () => void,
    readonly reject: (reason: Error) => void,
  ) {
    super()
    this.op = OP.FLUSH
  }

  override onData(): void {
    throw new Error('a flush has no data to give')
  }

  override onDone(error: number): void {
    if (error === 0) this.resolve()
    else this.reject(new LonghornError('IO', 'the volume could not be flushed'))
  }
}

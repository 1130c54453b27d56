import {randomFillSync} from 'node:crypto'

/** A prime, so that data which is off by any power of two is different data. */
const PERIOD = 1_048_573

/** Endless data in which every place looks different: position p always holds the same byte. */
export class Pattern {
  readonly #bytes: Buffer

  constructor() {
    const period = randomFillSync(Buffer.allocUnsafe(PERIOD))
    this.#bytes = Buffer.concat([period, period])
  }

  /** The bytes from `position` on; a view, at most one period long. */
  at(position: number, length: number): Buffer {
    const start = position % PERIOD
    return this.#bytes.subarray(start, start + length)
  }

  /** Index of the first byte that is not what `position` should hold; -1 if all are right. */
  mismatch(data: Buffer, position: number): number {
    for (let done = 0; done < data.length; done += PERIOD) {
      const part = data.subarray(done, done + PERIOD)
      const wanted = this.at(position + done, part.length)
      if (part.equals(wanted)) continue
      for (let index = 0; index < part.length; index++) if (part[index] !== wanted[index]) return done + index
    }
    return -1
  }
}

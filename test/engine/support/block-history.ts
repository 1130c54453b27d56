export const BLOCK = 4096

interface Block {
  /** What it has held one after the other; the first one has this number. */
  values: Buffer[]
  first: number
  /** The number of the last value that was acknowledged, and of the last that was flushed. */
  done: number
  flushed: number
}

/** A change of some blocks: which of their values it has made. */
export type Change = readonly (readonly [block: number, value: number])[]

/** What was acknowledged on some blocks when a flush began. */
export type FlushMark = readonly (readonly [block: number, value: number])[]

/**
 * What each block of a volume may hold. Changes of a block take effect in the order in which they are submitted; what has not been
 * acknowledged may be there or not, and after a power cut that holds for what has not been flushed.
 */
export class BlockHistory {
  readonly #blocks: Block[] = []

  constructor(sizeBytes: number) {
    this.grow(sizeBytes)
  }

  get sizeBytes(): number {
    return this.#blocks.length * BLOCK
  }

  /** The volume becomes larger, or after a failed expansion smaller again. */
  grow(sizeBytes: number): void {
    this.#blocks.length = Math.min(this.#blocks.length, sizeBytes / BLOCK)
    while (this.#blocks.length * BLOCK < sizeBytes) this.#blocks.push({values: [Buffer.alloc(BLOCK)], first: 0, done: 0, flushed: 0})
  }

  /** A write of `data`, or of zeros, is submitted. */
  submitted(offset: number, length: number, data?: Buffer): Change {
    const change: [number, number][] = []
    for (let at = offset; at < offset + length; ) {
      const number = Math.floor(at / BLOCK)
      const from = at - number * BLOCK
      const bytes = Math.min(BLOCK - from, offset + length - at)
      const value = Buffer.from(this.#blocks[number]!.values.at(-1)!)
      if (data === undefined) value.fill(0, from, from + bytes)
      else data.copy(value, from, at - offset, at - offset + bytes)
      change.push([number, this.#push(number, value)])
      at += bytes
    }
    return change
  }

  acknowledged(change: Change): void {
    for (const [number, value] of change) {
      const block = this.#blocks[number]!
      block.done = Math.max(block.done, value)
    }
  }

  /** A flush is submitted. */
  flushBegins(): FlushMark {
    return this.#blocks.flatMap(({done, flushed}, number) => (done > flushed ? [[number, done] as const] : []))
  }

  /** It was acknowledged. Also for a write with FUA. */
  flushed(mark: FlushMark): void {
    for (const [number, value] of mark) {
      const block = this.#blocks[number]!
      block.flushed = Math.max(block.flushed, value)
      block.values.splice(0, Math.max(0, block.flushed - block.first))
      block.first = Math.max(block.first, block.flushed)
    }
  }

  /** The range has been read, and nothing is in flight: it holds this from now on, whatever else would have been possible. */
  settle(content: Buffer, offset = 0): void {
    for (let at = 0; at < content.length; at += BLOCK) {
      const number = (offset + at) / BLOCK
      const block = this.#blocks[number]!
      const value = content.subarray(at, at + BLOCK)
      block.done = block.values.at(-1)!.equals(value) ? block.first + block.values.length - 1 : this.#push(number, Buffer.from(value))
    }
  }

  /** The same, and it is on the disks. */
  reset(content: Buffer): void {
    this.grow(content.length)
    this.settle(content)
    this.flushed(this.#blocks.map(({done}, number) => [number, done]))
  }

  /** What an ordinary crash may leave, or a power cut. A copy for later comparison. */
  possible(floor: 'done' | 'flushed'): Possible {
    return new Possible(this.#blocks.map(block => block.values.slice(block[floor] - block.first)))
  }

  #push(number: number, value: Buffer): number {
    const block = this.#blocks[number]!
    block.values.push(value)
    return block.first + block.values.length - 1
  }
}

/** Some contents of a volume. */
export class Possible {
  constructor(readonly blocks: readonly (readonly Buffer[])[]) {}

  static of(content: Buffer): Possible {
    return new Possible(Array.from({length: content.length / BLOCK}, (_, block) => [content.subarray(block * BLOCK, (block + 1) * BLOCK)]))
  }

  /** These, and in each block what `other` says. */
  or(other: Possible): Possible {
    return new Possible(this.blocks.map((values, number) => [...values, ...(other.blocks[number] ?? [])]))
  }

  /** The blocks that hold something else than one of these. */
  wrong(content: Buffer): number[] {
    const blocks: number[] = []
    for (let at = 0; at < content.length; at += BLOCK) {
      const value = content.subarray(at, at + BLOCK)
      const allowed = this.blocks[at / BLOCK]
      if (allowed === undefined ? value.some(byte => byte !== 0) : !allowed.some(one => one.equals(value))) blocks.push(at / BLOCK)
    }
    return blocks
  }
}

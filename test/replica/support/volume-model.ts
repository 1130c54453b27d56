const BLOCK = 4096

/** What a volume should hold: its bytes, and for each layer which blocks it holds. Every operation has its effect at once. */
export class VolumeModel {
  readonly content: Buffer
  readonly blocks: number
  /** One per layer, oldest first, the head last: 1 for each block that the layer holds. */
  readonly layers: Uint8Array[]

  constructor(readonly sizeBytes: number) {
    this.content = Buffer.alloc(sizeBytes)
    this.blocks = Math.ceil(sizeBytes / BLOCK)
    this.layers = [new Uint8Array(this.blocks)]
  }

  write(source: Buffer, offset: number): void {
    source.copy(this.content, offset)
    if (source.length > 0) this.#head.fill(1, Math.floor(offset / BLOCK), Math.ceil((offset + source.length) / BLOCK))
  }

  writeZeroes(offset: number, length: number, mayUnmap: boolean): void {
    if (length === 0) return
    const end = offset + length
    this.content.fill(0, offset, end)
    for (let block = Math.floor(offset / BLOCK); block * BLOCK < end; block++) {
      const blockEnd = Math.min(this.sizeBytes, (block + 1) * BLOCK)
      const whole = block * BLOCK >= offset && blockEnd <= end
      if (!whole || !mayUnmap) this.#head[block] = 1
      else if (this.#head[block] === 1) this.#giveUp(block)
      else if (this.#heldBelow(block)) this.#head[block] = 1
    }
  }

  discard(offset: number, length: number): void {
    const end = offset + length
    for (let block = Math.ceil(offset / BLOCK); block < this.blocks; block++) {
      const blockEnd = Math.min(this.sizeBytes, (block + 1) * BLOCK)
      if (blockEnd > end) return
      if (this.#head[block] !== 1) continue
      this.content.fill(0, block * BLOCK, blockEnd)
      this.#giveUp(block)
    }
  }

  snapshot(): void {
    this.layers.push(new Uint8Array(this.blocks))
  }

  /** The number of the layer that holds a block, 0 for none. */
  holder(block: number): number {
    for (let number = this.layers.length; number > 0; number--) {
      if (this.layers[number - 1]?.[block] === 1) return number
    }
    return 0
  }

  get #head(): Uint8Array {
    return this.layers.at(-1) as Uint8Array
  }

  #heldBelow(block: number): boolean {
    return this.layers.slice(0, -1).some(layer => layer[block] === 1)
  }

  #giveUp(block: number): void {
    if (!this.#heldBelow(block)) this.#head[block] = 0
  }
}

/** How far a backup, a restore, a check or a copy is. */
export interface TransferProgress {
  /** Blocks that are done, and that there are to do. */
  readonly blocks: number
  readonly totalBlocks: number
  /** Bytes of the volume that are done. */
  readonly volumeBytes: number
  /** Bytes of objects that were read or written. */
  readonly objectBytes: number
}

export type OnProgress = (progress: TransferProgress) => void

/** Counts what is done, and tells it. */
export class ProgressCounter {
  #blocks = 0
  #volumeBytes = 0
  #objectBytes = 0

  constructor(
    readonly totalBlocks: number,
    readonly onProgress: OnProgress = () => undefined,
  ) {
    this.#tell()
  }

  add(blocks: number, volumeBytes: number, objectBytes: number): void {
    this.#blocks += blocks
    this.#volumeBytes += volumeBytes
    this.#objectBytes += objectBytes
    this.#tell()
  }

  get progress(): TransferProgress {
    return {blocks: this.#blocks, totalBlocks: this.totalBlocks, volumeBytes: this.#volumeBytes, objectBytes: this.#objectBytes}
  }

  #tell(): void {
    this.onProgress(this.progress)
  }
}

/** Percent; 100 only when everything is done, which is not before the records are written. */
export function percentOf({blocks, totalBlocks}: Pick<TransferProgress, 'blocks' | 'totalBlocks'>): number {
  return totalBlocks === 0 ? 99 : Math.min(99, Math.floor((100 * blocks) / totalBlocks))
}

import type {ExtentScanner} from '../lib/sys/file-extents.js'
import type {LayerFile} from './layer-file.js'
import {BLOCK_BYTES, SEGMENT_BLOCKS, type SectorMap} from './sector-map.js'

/** The most blocks one survey covers: 128 MiB of volume. */
export const SURVEY_BLOCKS = 64 * SEGMENT_BLOCKS

/**
 * What lies under blocks that the head holds. The sector map does not know: it has only the topmost holder. A discard
 * must: a hole in the head over nothing reads as zeros, over a snapshot's data it would bring that data back.
 *
 * One byte per segment of 2 MiB remembers where nothing at all lies below, which is the whole volume before its first
 * snapshot. Elsewhere the frozen layers' extents are asked for when needed.
 */
export class BelowHead {
  readonly #occupied: Uint8Array

  /**
   * `map` is the map of all layers but the head, `frozen` are those layers, oldest first.
   * `incomplete`: something may be added to them later, so that everything counts as lying over data.
   */
  constructor(
    map: SectorMap,
    readonly frozen: readonly LayerFile[],
    readonly scanner: ExtentScanner,
    readonly incomplete: boolean,
  ) {
    this.#occupied = new Uint8Array(map.segments)
    for (let segment = 0; segment < map.segments; segment++) {
      if (incomplete || !map.isEmptySegment(segment)) this.#occupied[segment] = 1
    }
  }

  /** True when nothing at all lies below the segments that these blocks are in. */
  isEmpty(first: number, count: number): boolean {
    const last = Math.floor((first + count - 1) / SEGMENT_BLOCKS)
    for (let segment = Math.floor(first / SEGMENT_BLOCKS); segment <= last; segment++) {
      if (this.#occupied[segment] === 1) return false
    }
    return true
  }

  /**
   * Says for each of `count` blocks (at most SURVEY_BLOCKS) from `first` on whether a layer below the head holds it: 1 or 0.
   * Undefined when none is held, the cheap and common answer.
   */
  survey(first: number, count: number): Uint8Array | undefined {
    if (this.isEmpty(first, count)) return undefined
    const held = new Uint8Array(count)
    if (this.incomplete) return held.fill(1)
    let found = 0
    const mark = (offset: number, length: number): void => {
      const from = Math.max(0, Math.floor(offset / BLOCK_BYTES) - first)
      const to = Math.min(count, Math.ceil((offset + length) / BLOCK_BYTES) - first)
      for (let index = from; index < to; index++) {
        if (held[index] === 1) continue
        held[index] = 1
        found += 1
      }
    }
    // Newest first: it is the likeliest to hold everything.
    for (let index = this.frozen.length - 1; index >= 0 && found < count; index--) {
      const layer = this.frozen[index] as LayerFile
      this.scanner.scan(layer.fd, first * BLOCK_BYTES, count * BLOCK_BYTES, mark)
    }
    return found === 0 ? undefined : held
  }
}

import {open, stat} from 'node:fs/promises'
import {join} from 'node:path'
import type {ExtentScanner} from '../../lib/sys/file-extents.js'
import type {DiskSteps} from '../disk-steps.js'
import type {Layer} from '../layer-chain.js'
import {writeLayerMeta} from '../layer-meta-file.js'
import type {LayerMeta} from '../layer-meta.js'
import {checksumFile, metaFile, mergedName} from '../layer-names.js'
import {copyRanges, dataIn, fillHoles, WINDOW_BYTES, without, type Pace, type Range} from './copy-data.js'

/**
 * Two frozen layers become one: `lower`, which is marked as removed and which nothing but `upper` stands on, and `upper`.
 * The data of the one that takes less space goes into the other, so a small snapshot on a large one costs little, and so does
 * a large one on a small one. Until the very end both are whole and what is read through `upper` never changes:
 *
 *     up     holes of upper are filled with what shines through them       upper's .meta skips lower, lower is removed
 *     down   lower is overwritten where upper hides it anyway              lower's file also gets upper's name, then the same
 *
 * A crash anywhere leaves something that the next purge finishes.
 */
export class LayerMerge {
  private constructor(
    readonly path: string,
    readonly lower: Layer,
    readonly upper: Layer,
    readonly down: boolean,
    readonly scanner: ExtentScanner,
    readonly disk: DiskSteps,
  ) {}

  /** Looks at the files and decides which way is shorter. */
  static async plan(path: string, lower: Layer, upper: Layer, scanner: ExtentScanner, disk: DiskSteps): Promise<LayerMerge> {
    const [lowerIs, upperIs] = await Promise.all([lower, upper].map(({file}) => stat(join(path, file))))
    return new LayerMerge(path, lower, upper, upperIs!.blocks < lowerIs!.blocks, scanner, disk)
  }

  /** Brings the data together, durably. May be broken off and begun again. Throws Node's errors. */
  async copy(pace: Pace, copied: (bytes: number) => void): Promise<void> {
    const [from, to] = this.down ? [this.upper, this.lower] : [this.lower, this.upper]
    await using source = await open(join(this.path, from.file), 'r')
    await using target = await open(join(this.path, to.file), 'r+')
    const [sourceIs, targetIs] = await Promise.all([source.stat(), target.stat()])
    // Finished before, and interrupted afterwards.
    if (sourceIs.ino === targetIs.ino) return
    if (targetIs.size < sourceIs.size) await target.truncate(sourceIs.size)
    for (let offset = 0; offset < sourceIs.size; offset += WINDOW_BYTES) {
      const window: Range = {offset, length: Math.min(WINDOW_BYTES, sourceIs.size - offset)}
      const data = dataIn(this.scanner, source.fd, window)
      if (this.down) await copyRanges(source, target, data, pace, copied)
      else await fillHoles(source, target, without(data, dataIn(this.scanner, target.fd, window)), pace, this.scanner, copied)
    }
    await target.datasync()
  }

  /** Gives the merged file `upper`'s name and place. Resolves to what upper's .meta says from now on. */
  async commit(): Promise<LayerMeta> {
    const at = (file: string): string => join(this.path, file)
    await this.disk.remove(at(checksumFile(this.upper.file)))
    if (this.down) {
      const temporary = at(mergedName(this.upper.file))
      await this.disk.remove(temporary)
      await this.disk.link(at(this.lower.file), temporary)
      await this.disk.rename(temporary, at(this.upper.file))
      // Renaming one name of a file to another of its names does nothing.
      await this.disk.remove(temporary)
      // Before the .meta that relies on it.
      await this.disk.syncDirectory(this.path)
    }
    const meta = {...this.upper.meta, parent: this.lower.meta.parent}
    await writeLayerMeta(this.path, this.upper.file, meta, this.disk)
    return meta
  }

  /** Removes what `lower` was. */
  async removeLower(): Promise<void> {
    await removeLayerFiles(this.path, this.lower.file, this.disk)
  }

  /** The size of the merged file. */
  async sizeBytes(): Promise<number> {
    return (await stat(join(this.path, this.upper.file))).size
  }
}

/**
 * Removes a layer that nothing stands on. The data is gone for good before its description is: data alone would be a damaged
 * layer, and a description alone is found and removed by the next open.
 */
export async function removeLayerFiles(path: string, layer: string, disk: DiskSteps): Promise<void> {
  await disk.remove(join(path, layer))
  await disk.syncDirectory(path)
  for (const file of [checksumFile(layer), metaFile(layer)]) await disk.remove(join(path, file))
  await disk.syncDirectory(path)
}

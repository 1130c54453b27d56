import {open} from 'node:fs/promises'
import {join} from 'node:path'
import {Cleanup} from '../../lib/cleanup.js'
import {LonghornError} from '../../lib/errors.js'
import type {Log} from '../../lib/log.js'
import {RepeatLog} from '../../lib/repeat-log.js'
import {scannerFor} from '../../lib/sys/file-extents.js'
import {ERRNO, inRange, OP, type BlockDevice, type Extent, type Io} from '../../protocol/block-device.js'
import {MAX_EXTENTS} from '../../protocol/frame.js'
import type {ExportHello} from '../../protocol/hello.js'
import type {Export} from '../data-server.js'
import {DeviceReader} from '../device-reader.js'
import {isHeadName, isLayerName} from '../layer-names.js'
import {openVolumeView, type VolumeView} from '../open-replica.js'
import type {LayerReader} from '../layer-reader.js'
import {blocksIn, digestRegion} from './region-digest.js'

/**
 * A frozen layer alone, or the volume as it was when that layer was frozen, for others to read; to be closed. The layer must not be
 * purged meanwhile. NOT_FOUND when there is no such layer, USAGE for a head: that changes.
 */
export async function openExport(directory: string, hello: ExportHello, log: Log): Promise<Export> {
  const {kind, layer} = hello
  if (!isLayerName(layer) || isHeadName(layer)) throw new LonghornError('USAGE', `${layer} is not a frozen layer`)
  await using undo = new Cleanup()
  const view = await openVolumeView(directory, layer, {alone: kind === 'layer'})
  undo.defer(() => view.close())
  const digest = hello.kind === 'layer' ? await openDigest(directory, layer, view.sizeBytes, hello.digestKey) : undefined
  undo.move()
  const repeats = new RepeatLog(log)
  const device = new ExportDevice(view.reader, view.sizeBytes, error => repeats.error(layer, {err: error, layer}, 'reading a layer failed'), digest?.digest)
  const close = (): void => {
    device.close()
    repeats.close()
    void closeAll(view, digest, log)
  }
  return {device, close}
}

async function closeAll(view: VolumeView, digest: Digest | undefined, log: Log): Promise<void> {
  try {
    await view.close()
    await digest?.close()
  } catch (error) {
    log.error({err: error}, 'a layer could not be closed')
  }
}

interface Digest {
  digest(offset: number, length: number): Promise<Buffer>
  close(): Promise<void>
}

async function openDigest(directory: string, layer: string, sizeBytes: number, key: Buffer): Promise<Digest> {
  const file = await open(join(directory, layer), 'r')
  const scanner = scannerFor(file.fd)
  // Closing waits for what is being read.
  let running: Promise<unknown> = Promise.resolve()
  return {
    digest(offset, length) {
      const range = {offset, length: Math.min(length, sizeBytes - offset)}
      const digest = digestRegion(file, blocksIn(scanner, file.fd, range), offset, key)
      running = Promise.allSettled([running, digest])
      return digest
    },
    async close() {
      await running
      await file.close()
    },
  }
}

class ExportDevice implements BlockDevice {
  readonly #reader: DeviceReader

  constructor(
    readonly source: LayerReader,
    readonly sizeBytes: number,
    readonly onError: (error: unknown) => void,
    readonly digest?: (offset: number, length: number) => Promise<Buffer>,
  ) {
    this.#reader = new DeviceReader(
      (target, start, length, offset) => source.read(target, start, length, offset),
      (io, error) => this.#fail(io, error),
    )
  }

  submit(io: Io): void {
    if (io.op !== OP.READ || !inRange(io.offset, io.length, this.sizeBytes)) {
      io.onDone(ERRNO.EINVAL)
      return
    }
    try {
      this.#reader.read(io)
    } catch (error) {
      this.#fail(io, error)
    }
  }

  async blockStatus(offset: number, length: number): Promise<Extent[]> {
    const extents: Extent[] = []
    for (const {offset: from, length: bytes, data} of this.source.status(offset, length)) {
      extents.push({offset: from, length: bytes, allocated: data})
      if (extents.length === MAX_EXTENTS) break
    }
    return extents
  }

  close(): void {
    this.#reader.close()
  }

  #fail(io: Io, error: unknown): void {
    this.onError(error)
    io.onDone(ERRNO.EIO)
  }
}

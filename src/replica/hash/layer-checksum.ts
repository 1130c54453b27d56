import {open} from 'node:fs/promises'
import {join} from 'node:path'
import {scannerFor} from '../../lib/sys/file-extents.js'
import {dataIn, type Pace, WINDOW_BYTES} from '../purge/copy-data.js'
import {Crc64} from './crc64.js'

/** Takes the event loop about a millisecond. */
const SLICE_BYTES = 256 * 1024

/** The checksum of a layer's whole file. Holes are not read. Throws Node's errors and the pace's reason. */
export async function layerChecksum(directory: string, layer: string, pace: Pace): Promise<string> {
  await using file = await open(join(directory, layer), 'r')
  // Else asking for the extents would wait for the disk, in the event loop.
  await file.datasync()
  const {size} = await file.stat()
  const scanner = scannerFor(file.fd)
  const crc = new Crc64()
  const slice = Buffer.allocUnsafe(SLICE_BYTES)
  let at = 0
  for (let window = 0; window < size; window += WINDOW_BYTES) {
    const ranges = await pace.run(() => Promise.resolve(dataIn(scanner, file.fd, {offset: window, length: Math.min(WINDOW_BYTES, size - window)})))
    for (const {offset, length} of ranges) {
      const end = Math.min(size, offset + length)
      crc.updateZeros(Math.max(0, offset - at))
      for (at = Math.max(at, offset); at < end; ) {
        at += await pace.run(async () => {
          const {bytesRead} = await file.read(slice, 0, Math.min(SLICE_BYTES, end - at), at)
          if (bytesRead === 0) throw new Error(`${layer} became shorter while it was read`)
          crc.update(slice.subarray(0, bytesRead))
          return bytesRead
        })
      }
    }
  }
  crc.updateZeros(size - at)
  return crc.digest()
}

import {createHash} from 'node:crypto'
import {openVolumeView, type VolumeView} from '../../src/replica/open-replica.js'

const CHUNK_BYTES = 1024 * 1024
const ATTEMPTS = 50

/** All that a replica's directory holds of its volume, or of a snapshot, also while it is open. */
export async function replicaImage(directory: string, snapshot?: string): Promise<Buffer> {
  await using view = await openView(directory, snapshot)
  const bytes = Buffer.alloc(view.sizeBytes)
  view.reader.readSync(bytes, 0, bytes.length, 0)
  return bytes
}

/** SHA-256 of the same, for volumes that do not fit into memory. */
export async function replicaSum(directory: string): Promise<string> {
  await using view = await openView(directory)
  const hash = createHash('sha256')
  const chunk = Buffer.alloc(CHUNK_BYTES)
  for (let offset = 0; offset < view.sizeBytes; offset += CHUNK_BYTES) {
    const length = Math.min(CHUNK_BYTES, view.sizeBytes - offset)
    await view.reader.read(chunk, 0, length, offset)
    hash.update(chunk.subarray(0, length))
  }
  return hash.digest('hex')
}

/** A purge may take a layer away just when it is to be opened. */
async function openView(directory: string, snapshot?: string): Promise<VolumeView> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await openVolumeView(directory, snapshot && `volume-snap-${snapshot}.img`)
    } catch (error) {
      if (attempt === ATTEMPTS) throw error
      await new Promise(resolve => setTimeout(resolve, 20))
    }
  }
}

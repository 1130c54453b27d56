import {bufferAddress} from './buffer-address.js'
import {PAGE_BYTES} from './page-size.js'

/** Memory that begins at a page, as O_DIRECT wants it. Its content is whatever was there. */
export function alignedBuffer(bytes: number): Buffer {
  const memory = Buffer.allocUnsafeSlow(bytes + PAGE_BYTES)
  const start = (PAGE_BYTES - (bufferAddress(memory) % PAGE_BYTES)) % PAGE_BYTES
  return memory.subarray(start, start + bytes)
}

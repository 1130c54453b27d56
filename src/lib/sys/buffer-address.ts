import koffi from 'koffi'

let lastStore: ArrayBufferLike | undefined
let lastAddress = 0

/**
 * The address of byte `start` of a buffer, for passing to the C library. Unchecked: the caller has made sure that
 * everything it is going to touch lies inside the buffer, and keeps a reference to the buffer until the call is over.
 *
 * Buffers cut from one slab share their memory, and traffic comes in slabs, so the address of the last one is
 * remembered: asking koffi costs 60 ns and a BigInt. Memory of Node's buffers never moves.
 */
export function bufferAddress(buffer: Uint8Array, start = 0): number {
  const store = buffer.buffer
  if (store !== lastStore) {
    // Asked for the buffer and not for its store: koffi answers for views only.
    lastAddress = Number(koffi.address(buffer)) - buffer.byteOffset
    lastStore = store
  }
  return lastAddress + buffer.byteOffset + start
}

// Large requests are cut into pieces that the device takes. A cut lies on the edge of an inner block wherever it can, so
// that no block is read and written back twice.
import {MAX_IO_BYTES} from '../../protocol/block-device.js'

const BLOCK_BYTES = 4096

/** Of a payload that has arrived in part, pieces below this are not worth a request to every replica: more will come. */
export const LEAST_ARRIVED_BYTES = 64 * 1024

/** Length of the first piece of a range of `left` bytes. */
export function pieceLength(offset: number, left: number): number {
  return left <= MAX_IO_BYTES ? left : MAX_IO_BYTES - (offset % BLOCK_BYTES)
}

/** Number of pieces that a range is cut into by repeated pieceLength(). */
export function pieceCount(offset: number, length: number): number {
  if (length <= MAX_IO_BYTES) return 1
  return 1 + Math.ceil((length - pieceLength(offset, length)) / MAX_IO_BYTES)
}

/** As pieceLength(), of which only the first `arrived` bytes are here: 0 when it is better to wait for more. */
export function arrivedPieceLength(offset: number, left: number, arrived: number): number {
  if (arrived >= left) return pieceLength(offset, left)
  const most = Math.min(arrived, MAX_IO_BYTES)
  const length = most - ((offset + most) % BLOCK_BYTES)
  return length < LEAST_ARRIVED_BYTES ? 0 : length
}

import {constants} from 'node:os'
import {bufferAddress} from '../sys/buffer-address.js'
import {sendMessage} from './socket-calls.js'
import {SLAB_BYTES, slabs, type Slab} from './slab.js'

// struct iovec {void *base; size_t length} and the first fields of struct msghdr, both little-endian 64-bit:
//   msghdr  0 name  8 namelen (u32 + padding)  16 iov  24 iovlen  32 control  40 controllen  48 flags
const IOVEC_BYTES = 16
const MSGHDR_BYTES = 56
/** The kernel's UIO_MAXIOV. */
const MOST_PIECES_PER_CALL = 1024
const FIRST_CAPACITY = 256
const COPY_AT_MOST_BYTES = 32 * 1024
const TWO_TO_32 = 4294967296

/**
 * What one stream has to send: pieces of memory by address, sent with one system call a turn. Pieces that follow each
 * other in memory become one. Nothing is copied; when the socket is full, the slabs that unsent pieces lie in are
 * retained until they are sent, so their owners do not write them again.
 */
export class SendQueue {
  /** Bytes queued and not yet taken by the kernel. */
  bytes = 0
  #capacity = FIRST_CAPACITY
  #vector = Buffer.allocUnsafeSlow(FIRST_CAPACITY * IOVEC_BYTES)
  #words = wordsOf(this.#vector)
  #vectorAddress = bufferAddress(this.#vector)
  /** The slab of each piece; retained for the first `#held` of them. */
  #owners: Slab[] = []
  #count = 0
  #held = 0
  #lastEnd = -1
  readonly #header = Buffer.alloc(MSGHDR_BYTES)
  readonly #headerAddress = bufferAddress(this.#header)
  /** Where headers and small replies are put together; ours alone, so it is full only when `#arenaUsed` says so. */
  #arena: Slab | undefined
  #arenaUsed = 0

  /** True when something is queued. */
  get pending(): boolean {
    return this.#count > 0
  }

  /**
   * Queues `length` bytes of a slab. They must stay as they are until the end of this turn; after that the queue holds
   * a reference where it still needs them.
   */
  push(slab: Slab, start: number, length: number): void {
    if (length === 0) return
    const address = slab.address + start
    this.bytes += length
    const words = this.#words
    if (address === this.#lastEnd && this.#owners[this.#count - 1] === slab) {
      words[this.#count * 4 - 2]! += length
      this.#lastEnd = address + length
      return
    }
    if (this.#count === this.#capacity) this.#grow()
    this.#setPiece(this.#count, address, length)
    this.#owners[this.#count] = slab
    this.#count++
    this.#lastEnd = address + length
  }

  /**
   * As push(). But a few bytes are copied while the peer does not take what was queued before: otherwise each would keep
   * the whole slab around it in use, and a peer that does not read would hold a hundred times the memory of its data.
   */
  pushOrCopy(slab: Slab, start: number, length: number): void {
    if (this.#held === 0 || length > COPY_AT_MOST_BYTES) {
      this.push(slab, start, length)
      return
    }
    slab.buffer.copy(this.reserve(length).buffer, this.#arenaUsed, start, start + length)
    this.commit(length)
  }

  /** Room for `length` bytes (at most a slab) that the caller fills before the end of this turn; they are queued with commit(). */
  reserve(length: number): Slab {
    if (this.#arena === undefined || this.#arenaUsed + length > this.#arena.size) {
      if (length > SLAB_BYTES) throw new RangeError(`${length} bytes do not fit into a slab`)
      this.#replaceArena()
    }
    return this.#arena!
  }

  /** The offset in the reserved slab at which the caller writes. */
  get reservedAt(): number {
    return this.#arenaUsed
  }

  /** Queues the first `length` bytes of what was reserved. */
  commit(length: number): void {
    const start = this.#arenaUsed
    this.#arenaUsed += length
    this.push(this.#arena!, start, length)
  }

  /** Sends what the kernel takes: 0 when all is sent, else EAGAIN's negative errno, or that of the failure. */
  send(fd: number): number {
    let first = 0
    let result = 0
    while (first < this.#count) {
      const pieces = Math.min(this.#count - first, MOST_PIECES_PER_CALL)
      this.#writeHeader(first, pieces)
      result = sendMessage(fd, this.#headerAddress)
      if (result < 0) break
      const isLastCall = first + pieces === this.#count
      this.bytes -= result
      first = this.#advance(first, result)
      // A short send means a full socket; asking again would only say so.
      if (isLastCall && first < this.#count) {
        result = -constants.errno.EAGAIN
        break
      }
    }
    this.#dropSent(first)
    return Math.min(result, 0)
  }

  /** Retains the slabs of all that is queued, so that it may stay queued beyond this turn. */
  hold(): void {
    for (let index = this.#held; index < this.#count; index++) this.#owners[index]!.retain()
    this.#held = this.#count
    // A held piece must not grow: its slab's reference is counted per piece, and given back when the piece is sent.
    this.#lastEnd = -1
  }

  /** What is queued and not sent, as a copy. */
  unsent(): Buffer {
    const parts: Buffer[] = []
    for (let index = 0; index < this.#count; index++) {
      const slab = this.#owners[index]!
      const start = this.#words[index * 4]! + this.#words[index * 4 + 1]! * TWO_TO_32 - slab.address
      parts.push(slab.buffer.subarray(start, start + this.#words[index * 4 + 2]!))
    }
    return Buffer.concat(parts)
  }

  /** Forgets everything; the stream is gone. */
  clear(): void {
    for (let index = 0; index < this.#held; index++) this.#owners[index]!.release()
    this.#dropSent(this.#count)
    this.bytes = 0
    this.#arena?.release()
    this.#arena = undefined
    this.#arenaUsed = 0
  }

  #setPiece(index: number, address: number, length: number): void {
    const words = this.#words
    words[index * 4] = address % TWO_TO_32
    words[index * 4 + 1] = address / TWO_TO_32
    words[index * 4 + 2] = length
    words[index * 4 + 3] = 0
  }

  #writeHeader(first: number, pieces: number): void {
    const vector = this.#vectorAddress + first * IOVEC_BYTES
    this.#header.writeUInt32LE(vector % TWO_TO_32, 16)
    this.#header.writeUInt32LE((vector - (vector % TWO_TO_32)) / TWO_TO_32, 20)
    this.#header.writeUInt32LE(pieces, 24)
  }

  /** Index of the first piece with unsent bytes after `sent` bytes from `first` on have gone. */
  #advance(first: number, sent: number): number {
    const words = this.#words
    let left = sent
    while (first < this.#count && left >= words[first * 4 + 2]!) {
      left -= words[first * 4 + 2]!
      if (first < this.#held) this.#owners[first]!.release()
      first++
    }
    if (left > 0) {
      const address = words[first * 4]! + words[first * 4 + 1]! * TWO_TO_32 + left
      this.#setPiece(first, address, words[first * 4 + 2]! - left)
    }
    return first
  }

  /** Moves the unsent pieces to the front and makes sure their slabs stay as they are. */
  #dropSent(first: number): void {
    const left = this.#count - first
    if (left === 0) {
      this.#held = 0
      this.#count = 0
      this.#owners.length = 0
      this.#lastEnd = -1
      this.#arenaUsed = 0
      return
    }
    if (this.#held < first) this.#held = first
    this.hold()
    if (first === 0) return
    this.#vector.copyWithin(0, first * IOVEC_BYTES, this.#count * IOVEC_BYTES)
    this.#owners.splice(0, first)
    this.#held = left
    this.#count = left
  }

  /** The arena is full of unsent bytes, which keep it alive for themselves. */
  #replaceArena(): void {
    this.hold()
    this.#arena?.release()
    this.#arena = slabs.take()
    this.#arenaUsed = 0
  }

  #grow(): void {
    const larger = Buffer.allocUnsafeSlow(this.#capacity * 2 * IOVEC_BYTES)
    this.#vector.copy(larger)
    this.#vector = larger
    this.#words = wordsOf(larger)
    this.#vectorAddress = bufferAddress(larger)
    this.#capacity *= 2
  }
}

function wordsOf(vector: Buffer): Uint32Array {
  return new Uint32Array(vector.buffer, vector.byteOffset, vector.length / 4)
}

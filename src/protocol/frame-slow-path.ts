import {isKind} from '../lib/errors.js'
import type {Slab} from '../lib/net/slab.js'
import {ERRNO, inRange} from './block-device.js'
import {MAX_DIGEST_RANGE, MAX_EXTENTS} from './frame.js'
import type {FrameIo} from './frame-io.js'
import {writeDigest, writeExtents, writeRepaired} from './frame-replies.js'
import type {FrameRequests} from './frame-requests.js'

/** BLOCK_STATUS, DIGEST and REPAIR of one connection: what a device answers with a promise, because it is rare. */
export class FrameSlowPath {
  constructor(readonly requests: FrameRequests) {}

  blockStatus(io: FrameIo): void {
    const {requests} = this
    const {stream, device} = requests
    if (io.frameSize === 0 || !inRange(io.frameOffset, io.frameSize, device.sizeBytes)) {
      requests.finish(io, ERRNO.EINVAL)
      return
    }
    device.blockStatus(io.frameOffset, io.frameSize).then(
      extents => {
        if (!stream.closed) writeExtents(stream, io, extents.slice(0, MAX_EXTENTS))
        requests.recycle(io)
      },
      () => requests.finish(io, ERRNO.EIO),
    )
  }

  digest(io: FrameIo): void {
    const {requests} = this
    const {stream, device} = requests
    const {frameOffset: offset, frameSize: length} = io
    if (device.digest === undefined || length === 0 || length > MAX_DIGEST_RANGE || !inRange(offset, length, device.sizeBytes)) {
      requests.finish(io, ERRNO.EINVAL)
      return
    }
    device.digest(offset, length).then(
      digest => {
        if (!stream.closed) writeDigest(stream, io, digest)
        requests.recycle(io)
      },
      () => requests.finish(io, ERRNO.EIO),
    )
  }

  /** The payload is in `slab` from `start` on, all of it; the range has been checked. */
  repair(io: FrameIo, slab: Slab, start: number): void {
    const {requests} = this
    const {stream, device} = requests
    if (device.repair === undefined) {
      requests.finish(io, ERRNO.EINVAL)
      return
    }
    slab.retain()
    requests.bytes += io.frameSize
    const finish = (answer: () => void): void => {
      slab.release()
      requests.bytes -= io.frameSize
      answer()
      requests.onProgress()
    }
    const repaired = (left: number): void => {
      if (!stream.closed) writeRepaired(stream, io, left)
      requests.recycle(io)
    }
    device.repair(slab.buffer.subarray(start, start + io.frameSize), io.frameOffset).then(
      left => finish(() => repaired(left)),
      (error: unknown) => finish(() => requests.finish(io, isKind(error, 'NO_SPACE') ? ERRNO.ENOSPC : ERRNO.EIO)),
    )
  }
}

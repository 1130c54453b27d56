import {LonghornError, messageOf} from '../lib/errors.js'
import type {ByteStream} from '../lib/net/byte-stream.js'
import type {BlockDevice} from './block-device.js'
import {FRAME, FRAME_HEADER_BYTES, MAX_HELLO_BYTES} from './frame.js'
import type {FrameIo} from './frame-io.js'
import {writeText} from './frame-replies.js'
import type {FrameRequests} from './frame-requests.js'

/** What a HELLO with this text (hello.ts) is to work on from now on; throws when it may not. */
export type Greet = (text: string) => Promise<BlockDevice>

/** HELLO on one connection, where that is known: its text is taken whole, and the device it leads to is the connection's from the answer on. */
export class FrameGreeting {
  constructor(
    readonly requests: FrameRequests,
    readonly greet: Greet,
  ) {}

  /** False while a part of a HELLO is still to come; a header has arrived. Throws PROTOCOL when it is longer than any text. */
  isWhole(stream: ByteStream): boolean {
    const {input, start} = stream
    if (input.readUInt32LE(start + 6) !== FRAME.HELLO) return true
    const payload = input.readUInt32LE(start + 22)
    if (payload > MAX_HELLO_BYTES) throw new LonghornError('PROTOCOL', `${stream.peer}: a greeting of ${payload} bytes, more than ${MAX_HELLO_BYTES}`)
    return stream.available >= FRAME_HEADER_BYTES + payload
  }

  /** Takes the text, which is next in the stream, and answers. */
  take(io: FrameIo, payload: number): void {
    const {requests} = this
    const {stream} = requests
    const text = stream.input.toString('utf8', stream.start, stream.start + payload)
    stream.start += payload
    const greeted = this.greet(text)
    io.frameOffset = 0
    io.frameSize = 0
    greeted.then(
      device => {
        requests.device = device
        requests.finish(io, 0)
      },
      (error: unknown) => {
        if (!stream.closed) writeText(stream, io, FRAME.ERROR, messageOf(error))
        requests.recycle(io)
      },
    )
  }
}

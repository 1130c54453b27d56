// The block device of a replica over files that answer now, later, or not at all: who owns which bytes when.
import {stat} from 'node:fs'
import t, {type Test} from 'tap'
import {LonghornError, type ErrorKind} from '../../src/lib/errors.js'
import {slabs} from '../../src/lib/net/slab.js'
import {ERRNO, OP} from '../../src/protocol/block-device.js'
import {FRAME} from '../../src/protocol/frame.js'
import {FrameServerConnection} from '../../src/protocol/frame-server.js'
import {ReplicaDevice} from '../../src/replica/replica-device.js'
import type {ReplicaVolume} from '../../src/replica/replica-volume.js'
import {encodeFrame, FramePeer} from '../support/frames.js'
import {Pattern} from '../support/pattern.js'
import {submit, submitWrite} from '../support/request.js'
import {nodeSocket, shrinkBuffers, socketPair} from '../support/sockets.js'
import {until} from '../support/until.js'
import {seededRandom, type Random} from './support/random.js'

const SIZE_BYTES = 16 * 1024 * 1024
const pattern = new Pattern()

/** As much of a volume as the device uses. What is not in memory takes a trip through the thread pool. */
class SlowVolume {
  readonly sizeBytes = SIZE_BYTES
  readonly bytes = Buffer.alloc(SIZE_BYTES)
  failure: ErrorKind | undefined

  constructor(
    readonly random: Random,
    /** One request in this many is slow; 0: none. */
    readonly slowness: number,
  ) {}

  read(target: Buffer, start: number, length: number, offset: number): Promise<void> | undefined {
    return this.#answer(() => this.bytes.copy(target, start, offset, offset + length))
  }

  write(source: Buffer, start: number, length: number, offset: number): Promise<void> | undefined {
    return this.#answer(() => source.copy(this.bytes, offset, start, start + length))
  }

  flush(): Promise<void> {
    return this.#answer(() => 0) ?? Promise.resolve()
  }

  discard(): Promise<number> {
    return this.flush().then(() => 0)
  }

  writeZeroes(offset: number, length: number): Promise<void> {
    return this.#answer(() => this.bytes.fill(0, offset, offset + length)) ?? Promise.resolve()
  }

  *status(offset: number, length: number): Generator<{offset: number; length: number; data: boolean}> {
    for (let at = offset; at < offset + length; at += 4096) yield {offset: at, length: Math.min(4096, offset + length - at), data: true}
  }

  #answer(work: () => unknown): Promise<void> | undefined {
    const failure = this.failure && new LonghornError(this.failure, 'the disk says no')
    if (this.slowness === 0 || !this.random.oneIn(this.slowness)) {
      if (failure !== undefined) throw failure
      work()
      return undefined
    }
    const trips = 1 + this.random.below(4)
    return new Promise((resolve, reject) => {
      const trip = (left: number): void => {
        stat('/', () => {
          if (left > 0) {
            trip(left - 1)
          } else if (failure !== undefined) {
            reject(failure)
          } else {
            work()
            resolve()
          }
        })
      }
      trip(trips)
    })
  }
}

function open(t: Test, slowness: number): {volume: SlowVolume; device: ReplicaDevice; errors: unknown[]; random: Random} {
  const random = seededRandom(t)
  const volume = new SlowVolume(random, slowness)
  const errors: unknown[] = []
  const device = new ReplicaDevice(volume as unknown as ReplicaVolume, error => errors.push(error))
  t.teardown(() => device.close())
  return {volume, device, errors, random}
}

for (const slowness of [0, 1, 3]) {
  t.test(`reads and writes over a connection that is slow now and then; ${['no', 'every', '', 'every third'][slowness]} request waits for the disk`, async t => {
    const {volume, device, random} = open(t, slowness)
    const before = slabs.inUse
    for (let at = 0; at < SIZE_BYTES; at += 65_536) pattern.at(at, 65_536).copy(volume.bytes, at)
    const [near, far] = socketPair()
    const connection = new FrameServerConnection(near, {device, noSpaceType: FRAME.ERROR, peer: 'engine', onClose: () => undefined})
    shrinkBuffers(near, 65_536)
    const peer = new FramePeer(nodeSocket(far))
    const asked = new Map<number, {type: number; offset: number; size: number}>()
    let wrong = 0
    let answers = 0
    const total = 3000
    const receive = (async () => {
      while (answers < total) {
        const {sequence, type, payload} = await peer.next()
        const request = asked.get(sequence)
        answers++
        if (type !== FRAME.RESPONSE || request === undefined) wrong++
        else if (request.type === FRAME.READ && (payload.length !== request.size || pattern.mismatch(payload, request.offset) >= 0)) wrong++
        if (random.oneIn(40)) {
          peer.socket.pause()
          setTimeout(() => peer.socket.resume(), random.below(10))
        }
      }
    })()
    for (let sequence = 0; sequence < total; sequence++) {
      const size = 1 + random.below(random.oneIn(5) ? 300_000 : 9000)
      const offset = random.below(SIZE_BYTES - size)
      // What is written is what is there already, so that reads may come at any time; a wrong byte would be seen.
      const type = random.oneIn(2) ? FRAME.READ : FRAME.WRITE
      asked.set(sequence, {type, offset, size})
      const payload = type === FRAME.WRITE ? Buffer.from(pattern.at(offset, size)) : Buffer.alloc(0)
      if (!peer.socket.write(encodeFrame({sequence, type, offset: BigInt(offset), size, payload}))) {
        await new Promise(resolve => peer.socket.once('drain', resolve))
      }
    }
    await receive
    t.equal(wrong, 0)
    t.equal(pattern.mismatch(volume.bytes, 0), -1)
    connection.close()
    peer.socket.destroy()
    device.close()
    await until(() => slabs.inUse <= before, 'every slab has been given back')
  })
}

t.test('errors, now and later', async t => {
  for (const slowness of [0, 1]) {
    const {volume, device, errors} = open(t, slowness)
    for (const [kind, errno] of [
      ['NO_SPACE', ERRNO.ENOSPC],
      ['CONFLICT', ERRNO.ESHUTDOWN],
      ['IO', ERRNO.EIO],
      ['CORRUPT', ERRNO.EIO],
    ] as const) {
      volume.failure = kind
      const requests = [submit(device, OP.READ, 0, 4096), submitWrite(device, 0, Buffer.alloc(4096))]
      for (const io of requests) t.equal((await io.answered).error, errno, `${kind}, slowness ${slowness}`)
      if (slowness === 1) {
        for (const op of [OP.FLUSH, OP.DISCARD, OP.WRITE_ZEROES]) t.equal((await submit(device, op, 0, op === OP.FLUSH ? 0 : 4096).answered).error, errno)
      }
    }
    t.ok(errors.length >= 8)
    const seen = errors.length
    t.equal((await submit(device, OP.READ, SIZE_BYTES, 1).answered).error, ERRNO.EINVAL)
    t.equal((await submitWrite(device, SIZE_BYTES - 1, Buffer.alloc(2)).answered).error, ERRNO.EINVAL)
    t.equal(errors.length, seen, 'a range that is wrong is no error of the disk')
  }
})

t.test('block status stops where an answer is full', async t => {
  const {device} = open(t, 0)
  const extents = await device.blockStatus(0, SIZE_BYTES)
  t.equal(extents.length, 4096)
  t.same(extents.at(-1), {offset: 4095 * 4096, length: 4096, allocated: true})
})

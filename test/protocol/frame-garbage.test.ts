// What a server of the data protocol does with bytes that no decent client sends.
import fc from 'fast-check'
import t, {type Test} from 'tap'
import {LonghornError} from '../../src/lib/errors.js'
import {slabs} from '../../src/lib/net/slab.js'
import {FRAME} from '../../src/protocol/frame.js'
import {FrameServerConnection} from '../../src/protocol/frame-server.js'
import {MemoryDevice} from '../engine/support/memory-device.js'
import {encodeFrame, FramePeer} from '../support/frames.js'
import {nodeSocket, socketPair} from '../support/sockets.js'
import {until} from '../support/until.js'

const SIZE_BYTES = 1024 * 1024

interface Served {
  readonly connection: FrameServerConnection
  readonly peer: FramePeer
  readonly closings: (Error | undefined)[]
  close(): void
}

function serve(device: MemoryDevice): Served {
  const [near, far] = socketPair()
  const closings: (Error | undefined)[] = []
  const connection = new FrameServerConnection(near, {
    device,
    noSpaceType: FRAME.ENOSPC,
    peer: 'somebody',
    onClose: (_closed, reason) => closings.push(reason),
  })
  const peer = new FramePeer(nodeSocket(far))
  const close = (): void => {
    connection.close()
    peer.socket.destroy()
  }
  return {connection, peer, closings, close}
}

/** Sends bytes and ends; the connection must end too, in order or with a reason that has a meaning. */
async function survive(device: MemoryDevice, bytes: Uint8Array): Promise<Error | undefined> {
  const {peer, closings, close} = serve(device)
  peer.socket.end(bytes)
  await until(() => closings.length > 0, 'the connection ends')
  close()
  const [reason] = closings
  if (reason !== undefined && !(reason instanceof LonghornError)) throw reason
  return reason
}

async function healthy(t: Test, device: MemoryDevice): Promise<void> {
  const {peer, close} = serve(device)
  peer.send({sequence: 1, type: FRAME.READ, size: 4096})
  t.match(await peer.next(), {sequence: 1, type: FRAME.RESPONSE, size: 4096})
  close()
}

const u32 = fc.oneof(fc.constantFrom(0, 1, 511, 512, 4096, 131072, 131073, SIZE_BYTES, 0x7fffffff, 0xffffffff), fc.integer({min: 0, max: 0xffffffff}))
const offset = fc.oneof(fc.constantFrom(0n, 1n, 4096n, BigInt(SIZE_BYTES) - 1n, BigInt(SIZE_BYTES), -1n, 2n ** 53n), fc.bigInt({min: -(2n ** 63n), max: 2n ** 63n - 1n}))
const types = fc.oneof({weight: 3, arbitrary: fc.constantFrom(...Object.values(FRAME))}, {weight: 1, arbitrary: u32})

t.test('random bytes', async t => {
  const device = new MemoryDevice(SIZE_BYTES)
  const before = slabs.inUse
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({minLength: 1, maxLength: 400}), async bytes => {
      const reason = await survive(device, bytes)
      const startsLikeAFrame = bytes[0] === 0x01 && bytes[1] === 0x1b
      if (!startsLikeAFrame) t.match(reason, {code: bytes.length >= 26 ? 'LH_PROTOCOL' : 'LH_UNREACHABLE'})
    }),
    {numRuns: 150},
  )
  await healthy(t, device)
  await until(() => slabs.inUse <= before + 2, 'every slab has been given back')
})

t.test('frames with random fields: every request is answered once, and the connection goes on', async t => {
  const requests = new Set<number>([
    FRAME.READ,
    FRAME.WRITE,
    FRAME.PING,
    FRAME.UNMAP,
    FRAME.FLUSH,
    FRAME.WRITE_DURABLE,
    FRAME.WRITE_ZEROES,
    FRAME.WRITE_ZEROES_ALLOCATED,
    FRAME.BLOCK_STATUS,
    FRAME.WRITE_ATOMIC,
    FRAME.DIGEST,
    FRAME.REPAIR,
  ])
  const device = new MemoryDevice(SIZE_BYTES)
  const frame = fc.record({sequence: u32, type: types, offset, size: u32, payload: fc.uint8Array({maxLength: 300}).map(bytes => Buffer.from(bytes))})
  await fc.assert(
    fc.asyncProperty(fc.array(frame, {maxLength: 12}), fc.constantFrom('now', 'later'), async (frames, mode) => {
      device.mode = mode
      const {peer, closings, close} = serve(device)
      peer.socket.write(Buffer.concat(frames.map(encodeFrame)))
      const wanted = frames.filter(({type}) => requests.has(type)).map(({sequence}) => sequence)
      const answered: number[] = []
      for (const _ of wanted) answered.push((await peer.next()).sequence)
      peer.send({sequence: 7, type: FRAME.PING})
      t.equal((await peer.next()).sequence, 7)
      t.same(answered.sort(), wanted.sort())
      t.same(closings, [])
      close()
    }),
    {numRuns: 150},
  )
})

t.test('headers that lie about what follows', async t => {
  const device = new MemoryDevice(SIZE_BYTES)
  const before = slabs.inUse
  const frame = fc.record({sequence: u32, type: types, offset, size: u32, payloadLength: u32})
  await fc.assert(
    fc.asyncProperty(fc.array(frame, {minLength: 1, maxLength: 20}), async frames => {
      await survive(device, Buffer.concat(frames.map(encodeFrame)))
    }),
    {numRuns: 150},
  )
  await healthy(t, device)
  await until(() => slabs.inUse <= before + 2, 'every slab has been given back')
})

t.test('a decent conversation with some bits turned over', async t => {
  const device = new MemoryDevice(SIZE_BYTES)
  const before = slabs.inUse
  const memory = process.memoryUsage().rss
  const conversation = Buffer.concat([
    encodeFrame({sequence: 1, type: FRAME.WRITE, offset: 4096n, size: 4096, payload: Buffer.alloc(4096, 1)}),
    encodeFrame({sequence: 2, type: FRAME.READ, offset: 4096n, size: 200_000}),
    encodeFrame({sequence: 3, type: FRAME.BLOCK_STATUS, offset: 0n, size: SIZE_BYTES}),
    encodeFrame({sequence: 4, type: FRAME.UNMAP, offset: 0n, size: SIZE_BYTES}),
    encodeFrame({sequence: 5, type: FRAME.FLUSH}),
    encodeFrame({sequence: 6, type: FRAME.PING}),
  ])
  // Mostly in headers, where it matters.
  const bit = fc.oneof(fc.integer({min: 0, max: 26 * 8 - 1}), fc.integer({min: (26 + 4096) * 8, max: conversation.length * 8 - 1}))
  await fc.assert(
    fc.asyncProperty(fc.array(bit, {minLength: 1, maxLength: 4}), async bits => {
      const bytes = Buffer.from(conversation)
      for (const at of bits) bytes[at >> 3]! ^= 1 << (at & 7)
      await survive(device, bytes)
    }),
    {numRuns: 300},
  )
  await healthy(t, device)
  await until(() => slabs.inUse <= before + 2, 'every slab has been given back')
  const grown = (process.memoryUsage().rss - memory) / 1024 ** 2
  t.ok(grown < 300, `${Math.round(grown)} MiB more memory`)
})

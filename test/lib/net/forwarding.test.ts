// What the engine does with its streams: input is pushed to other streams by address, some of which are slow or stand still,
// so that slabs are held, replaced and reused in every combination. Each byte says where it belongs.
import t, {type Test} from 'tap'
import {ByteStream, type StreamHandler} from '../../../src/lib/net/byte-stream.js'
import {reactor} from '../../../src/lib/net/reactor.js'
import {slabs} from '../../../src/lib/net/slab.js'
import {seededRandom, type Random} from '../../replica/support/random.js'
import {Pattern} from '../../support/pattern.js'
import {nodeSocket, shrinkBuffers, socketPair} from '../../support/sockets.js'
import {until} from '../../support/until.js'
import type {Socket} from 'node:net'

const HEADER_BYTES = 12
const MAX_UNSENT_BYTES = 2 * 1024 * 1024
const pattern = new Pattern()

/** One side of the forwarder: what arrives here goes to `targets`, each piece behind a header that says where it comes from. */
class Side implements StreamHandler {
  readonly stream: ByteStream
  targets: readonly Side[] = []
  sources: readonly Side[] = []
  closed = false
  #position = 0
  /** Bytes that must be there before the next piece is passed on, as a codec would wait for a whole message. */
  #unit = 1

  constructor(
    fd: number,
    readonly tag: number,
    readonly random: Random,
    readonly mostUnit: number,
  ) {
    this.stream = new ByteStream(fd, this, `side ${tag}`)
  }

  onInput(stream: ByteStream): void {
    while (stream.available >= this.#unit) {
      if (this.targets.some(({stream: {output}}) => output.bytes > MAX_UNSENT_BYTES)) {
        stream.pause()
        return
      }
      const most = Math.min(stream.available, 128 * 1024)
      const length = this.random.oneIn(3) ? 1 + this.random.below(Math.min(most, 5000)) : Math.max(this.#unit, 1 + this.random.below(most))
      const start = stream.start
      stream.start += length
      for (const target of this.targets) target.pass(this.tag, this.#position, stream, start, length)
      this.#position += length
      this.#unit = this.random.oneIn(4) ? 1 + this.random.below(this.mostUnit) : 1
    }
  }

  onDrain(): void {
    for (const source of this.sources) source.#resume()
  }

  onClose(): void {
    this.closed = true
    for (const source of this.sources) source.targets = source.targets.filter(target => target !== this)
    this.onDrain()
  }

  /** No more input is to come: what is left is less than a unit. */
  finish(): void {
    this.#unit = 1
    if (this.stream.available > 0) this.onInput(this.stream)
  }

  pass(tag: number, position: number, from: ByteStream, start: number, length: number): void {
    const {output} = this.stream
    const {buffer} = output.reserve(HEADER_BYTES)
    buffer.writeUInt32LE(tag, output.reservedAt)
    buffer.writeUInt32LE(position, output.reservedAt + 4)
    buffer.writeUInt32LE(length, output.reservedAt + 8)
    output.commit(HEADER_BYTES)
    output.push(from.slab, start, length)
    this.stream.flushSoon()
  }

  /** In this turn, between turns, or in a turn to come: all of them happen. */
  #resume(): void {
    if (!this.stream.paused) return
    const resume = (): void => this.stream.resume()
    switch (this.random.below(4)) {
      case 0:
        return resume()
      case 1:
        return void Promise.resolve().then(resume)
      case 2:
        return void setImmediate(resume)
      default:
        setTimeout(resume, 1)
    }
  }
}

/** The far end of a side: sends the pattern, and checks what it gets, each reading and writing at its own pace. */
class FarEnd {
  /** Bytes that have come from each side. */
  readonly received = new Map<number, number>()
  problem: string | undefined
  #buffered: Buffer = Buffer.alloc(0)
  readonly #socket: Socket

  constructor(
    fd: number,
    readonly random: Random,
    /** One reply in this many is followed by a pause in reading. */
    readonly laziness: number,
  ) {
    this.#socket = nodeSocket(fd)
    this.#socket.on('data', (chunk: Buffer) => this.#check(chunk))
  }

  async send(total: number): Promise<void> {
    for (let sent = 0; sent < total; ) {
      const length = Math.min(total - sent, 1 + this.random.below(this.random.oneIn(3) ? 300_000 : 9000))
      if (!this.#socket.write(pattern.at(sent, length))) await new Promise(resolve => this.#socket.once('drain', resolve))
      sent += length
    }
  }

  /** No more is sent; what comes is still received. */
  end(): void {
    this.#socket.end()
  }

  close(): void {
    this.#socket.destroy()
  }

  #check(chunk: Buffer): void {
    let input = this.#buffered.length === 0 ? chunk : Buffer.concat([this.#buffered, chunk])
    while (input.length >= HEADER_BYTES) {
      const [tag, position, length] = [input.readUInt32LE(0), input.readUInt32LE(4), input.readUInt32LE(8)]
      const expected = this.received.get(tag) ?? 0
      if (position !== expected || length > 128 * 1024) {
        this.problem ??= `a header says ${tag} ${position} ${length}, expected position ${expected}`
        this.#socket.destroy()
        return
      }
      if (input.length < HEADER_BYTES + length) break
      const wrong = pattern.mismatch(input.subarray(HEADER_BYTES, HEADER_BYTES + length), position)
      if (wrong >= 0) this.problem ??= `byte ${position + wrong} from ${tag}, in a piece of ${length}, is wrong`
      this.received.set(tag, position + length)
      input = input.subarray(HEADER_BYTES + length)
    }
    this.#buffered = input
    if (this.random.oneIn(this.laziness)) {
      this.#socket.pause()
      setTimeout(() => this.#socket.resume(), this.random.below(12))
    }
  }
}

interface Rig {
  readonly sides: readonly Side[]
  readonly ends: readonly FarEnd[]
}

/** Side 0 is the initiator, whose input goes to all others; theirs goes to it. */
function rig(t: Test, random: Random, others: number, small: boolean, mostUnit = 100_000): Rig {
  const sides: Side[] = []
  const ends: FarEnd[] = []
  for (let tag = 0; tag <= others; tag++) {
    const [near, far] = socketPair()
    sides.push(new Side(near, tag, random, mostUnit))
    if (small) shrinkBuffers(near)
    ends.push(new FarEnd(far, random, tag === others ? 4 : 40))
  }
  const [first, ...rest] = sides
  first!.targets = rest
  first!.sources = rest
  for (const side of rest) {
    side.targets = [first!]
    side.sources = [first!]
  }
  t.teardown(() => {
    for (const side of sides) side.stream.destroy()
    for (const end of ends) end.close()
  })
  return {sides, ends}
}

for (const small of [true, false]) {
  t.test(`every byte arrives once, in order, both ways (${small ? 'small' : 'large'} kernel buffers)`, async t => {
    const random = seededRandom(t)
    const before = slabs.inUse
    const total = small ? 12 * 1024 * 1024 : 40 * 1024 * 1024
    const {sides, ends} = rig(t, random, 3, small)
    await Promise.all(ends.map(end => end.send(total)))
    const all = (end: FarEnd, tags: number[]): boolean => {
      for (const side of sides) side.finish()
      return end.problem !== undefined || tags.every(tag => end.received.get(tag) === total)
    }
    await until(() => all(ends[0]!, [1, 2, 3]) && ends.slice(1).every(end => all(end, [0])), 'everything has arrived', 60_000)
    t.same(
      ends.map(end => end.problem),
      [undefined, undefined, undefined, undefined],
    )
    for (const side of sides) side.stream.destroy()
    await flushed()
    t.ok(slabs.inUse <= before, 'every slab has been given back')
  })
}

t.test('a target that vanishes takes nothing from the others with it', async t => {
  const random = seededRandom(t)
  const before = slabs.inUse
  const total = 8 * 1024 * 1024
  for (const how of ['near', 'far'] as const) {
    const {sides, ends} = rig(t, random, 2, true)
    const sent = ends[0]!.send(total)
    await until(() => (ends[2]!.received.get(0) ?? 0) > 100_000, 'the doomed target has got something')
    if (how === 'near') sides[2]!.stream.destroy(new Error('dropped'))
    else ends[2]!.close()
    await sent
    await until(() => {
      sides[0]!.finish()
      return ends[1]!.received.get(0) === total || ends[1]!.problem !== undefined
    }, 'the other target has got everything')
    t.equal(ends[1]!.problem, undefined)
    t.ok(sides[2]!.closed)
    for (const side of sides) side.stream.destroy()
    await flushed()
    t.ok(slabs.inUse <= before, 'every slab has been given back')
  }
})

t.test('a source that has said all: everything it sent arrives', async t => {
  const random = seededRandom(t)
  const before = slabs.inUse
  const {sides, ends} = rig(t, random, 2, true, 1)
  const total = 3 * 1024 * 1024 + 17
  await ends[0]!.send(total)
  ends[0]!.end()
  const done = (end: FarEnd): boolean => end.received.get(0) === total || end.problem !== undefined
  await until(() => ends.slice(1).every(done) && sides[0]!.closed, 'everything has arrived')
  t.same([ends[1]!.problem, ends[2]!.problem], [undefined, undefined])
  for (const side of sides) side.stream.destroy()
  await flushed()
  t.ok(slabs.inUse <= before, 'every slab has been given back')
})

/** The end of the turn after this one. */
function flushed(): Promise<void> {
  const {turn} = reactor
  return until(() => reactor.turn > turn || slabs.inUse === 0, 'a turn of the reactor')
}

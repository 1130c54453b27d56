import {connect, type Socket} from 'node:net'
import {once} from 'node:events'
import {setTimeout as delay} from 'node:timers/promises'
import {FRAME} from '../../../src/protocol/frame.js'
import type {Random} from '../../replica/support/random.js'
import {FramePeer, type Frame} from '../../support/frames.js'

export const BLOCK_BYTES = 4096
const MOST_BLOCKS = 48
/** See VerifiedLoad.rests. */
const WORKS_MS = 10
const RESTS_MS = 30

interface Block {
  /** The last generation whose write was acknowledged; 0: never written, reads as zeros. */
  acknowledged: number
  /** Generations that were sent later and never acknowledged: the block may hold one of them instead. */
  maybe: number[]
  busy: boolean
}

interface Pending {
  readonly first: number
  readonly generations: readonly number[]
  readonly type: number
  readonly sentAt: number
}

/**
 * An initiator that knows what the volume must hold. Every block says which block it is and in which generation it was
 * written, so that a lost, torn, misplaced or stale write is told from a good one. It outlives its connections.
 */
export class VerifiedLoad {
  /** What is wrong, in words; empty is what a test wants. */
  readonly problems: string[] = []
  /** The longest time in milliseconds between two answers while requests were waiting. */
  longestSilenceMs = 0
  answers = 0
  /** Requests that were answered with an error. */
  errors = 0
  /** Whether it works and rests in turns while nobody waits for its progress: what is waited for needs the processors too. */
  rests = false
  readonly #blocks: Block[]
  readonly #random: Random
  #generation = 0
  #peer: FramePeer | undefined
  #socket: Socket | undefined
  readonly #pending = new Map<number, Pending>()
  #sequence = 0
  #running: Promise<void> | undefined
  #stopping = false
  #lastAnswer = 0
  /** How many wait for its progress now. */
  #awaited = 0

  /** `flushes`: a disk that others keep busy may take longer for one than short time-outs allow. */
  constructor(sizeBytes: number, random: Random, readonly flushes = true) {
    this.#random = random
    this.#blocks = Array.from({length: sizeBytes / BLOCK_BYTES}, () => ({acknowledged: 0, maybe: [], busy: false}))
  }

  async connect(path: string): Promise<void> {
    this.#socket = connect(path)
    await once(this.#socket, 'connect')
    this.#peer = new FramePeer(this.#socket)
  }

  /** Writes, reads and flushes with `depth` requests in flight until stop() or the end of the connection. */
  start(depth = 16): void {
    this.#stopping = false
    this.#running = this.#run(depth)
  }

  /** Waits for the answers to what is in flight. */
  async stop(): Promise<void> {
    this.#stopping = true
    await this.#running
  }

  disconnect(): void {
    this.#socket?.destroy()
  }

  /** Resolves when this many more answers have come: it is in the middle of its requests then. */
  async progress(answers: number, timeoutMs = 120_000): Promise<void> {
    const target = this.answers + answers
    const deadline = performance.now() + timeoutMs
    this.#awaited++
    try {
      while (this.answers < target) {
        if (performance.now() > deadline) throw new Error(`only ${this.answers - target + answers} of ${answers} answers within ${timeoutMs} ms`)
        await delay(5)
      }
    } finally {
      this.#awaited--
    }
  }

  /** Reads the whole volume and compares. What may have been one or the other is known afterwards. */
  async verifyAll(): Promise<void> {
    const step = 32
    for (let first = 0; first < this.#blocks.length; first += step) {
      const count = Math.min(step, this.#blocks.length - first)
      const {type, payload} = await this.#ask({type: FRAME.READ, offset: BigInt(first * BLOCK_BYTES), size: count * BLOCK_BYTES})
      if (type !== FRAME.RESPONSE) {
        this.problems.push(`reading block ${first} failed: ${payload}`)
        continue
      }
      for (let index = 0; index < count; index++) {
        this.#check(first + index, payload.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES), 'in the end')
      }
    }
  }

  /** Compares the image of a replica with what the volume must hold. */
  verifyImage(image: Buffer, name: string): void {
    this.#blocks.forEach((_, block) => this.#check(block, image.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES), name))
  }

  /** Blocks whose last write may or may not have happened: nobody was told that it had. */
  uncertain(): Set<number> {
    return new Set(this.#blocks.flatMap(({maybe}, block) => (maybe.length > 0 ? [block] : [])))
  }

  async #run(depth: number): Promise<void> {
    const peer = this.#peer!
    this.#lastAnswer = performance.now()
    let restAt = performance.now() + WORKS_MS
    while (!peer.ended) {
      const resting = this.rests && this.#awaited === 0 && performance.now() > restAt
      while (!resting && !this.#stopping && this.#pending.size < depth) this.#submit(peer)
      if (this.#pending.size === 0) {
        if (this.#stopping) return
        await this.#rest(peer)
        restAt = performance.now() + WORKS_MS
        continue
      }
      let frame: Frame
      try {
        frame = await peer.next(60_000)
      } catch {
        break
      }
      this.#answered(frame)
    }
    // What was not answered may have happened or not.
    for (const {first, generations, type} of this.#pending.values()) this.#finished(first, generations, type, false)
    this.#pending.clear()
  }

  async #rest(peer: FramePeer): Promise<void> {
    const over = performance.now() + RESTS_MS
    while (performance.now() < over && this.#awaited === 0 && !this.#stopping && !peer.ended) await delay(5)
  }

  #submit(peer: FramePeer): void {
    const sequence = this.#sequence++
    const kind = this.#random.below(100)
    if (kind === 0 && this.flushes) {
      this.#pending.set(sequence, {first: 0, generations: [], type: FRAME.FLUSH, sentAt: performance.now()})
      peer.send({sequence, type: FRAME.FLUSH})
      return
    }
    const [first, count] = this.#claim()
    if (count === 0) return
    const isRead = kind < 30
    const generations = Array.from({length: count}, (_, index) => (isRead ? this.#blocks[first + index]!.acknowledged : ++this.#generation))
    const type = isRead ? FRAME.READ : FRAME.WRITE
    this.#pending.set(sequence, {first, generations, type, sentAt: performance.now()})
    const offset = BigInt(first * BLOCK_BYTES)
    if (isRead) peer.send({sequence, type, offset, size: count * BLOCK_BYTES})
    else peer.send({sequence, type, offset, size: count * BLOCK_BYTES, payload: Buffer.concat(generations.map((generation, index) => content(first + index, generation)))})
  }

  /** A run of blocks that no other request is at. */
  #claim(): [first: number, count: number] {
    const first = this.#random.below(this.#blocks.length)
    const wanted = this.#random.oneIn(4) ? 1 + this.#random.below(MOST_BLOCKS) : 1
    let count = 0
    while (count < wanted && first + count < this.#blocks.length && !this.#blocks[first + count]!.busy) {
      this.#blocks[first + count]!.busy = true
      count++
    }
    return [first, count]
  }

  #answered({sequence, type, payload}: Frame): void {
    const now = performance.now()
    const request = this.#pending.get(sequence)
    if (request === undefined) {
      this.problems.push(`an answer to ${sequence}, which was not asked`)
      return
    }
    this.#pending.delete(sequence)
    this.answers++
    this.longestSilenceMs = Math.max(this.longestSilenceMs, now - Math.max(this.#lastAnswer, request.sentAt))
    this.#lastAnswer = now
    const good = type === FRAME.RESPONSE
    if (!good) this.errors++
    if (good && request.type === FRAME.READ) {
      request.generations.forEach((_, index) => {
        this.#check(request.first + index, payload.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES), 'read')
      })
    }
    this.#finished(request.first, request.generations, request.type, good)
  }

  #finished(first: number, generations: readonly number[], type: number, good: boolean): void {
    generations.forEach((generation, index) => {
      const block = this.#blocks[first + index]!
      block.busy = false
      if (type !== FRAME.WRITE) return
      if (good) {
        block.acknowledged = generation
        block.maybe = []
      } else {
        block.maybe.push(generation)
      }
    })
  }

  #check(index: number, data: Buffer, where: string): void {
    const block = this.#blocks[index]!
    for (const generation of [block.acknowledged, ...block.maybe]) if (data.equals(content(index, generation))) return
    if (this.problems.length > 20) return
    const found = data.length === BLOCK_BYTES ? `generation ${data.readUInt32LE(4)} of block ${data.readUInt32LE(0)}` : `${data.length} bytes`
    const torn = data.length === BLOCK_BYTES && !data.equals(content(data.readUInt32LE(0), data.readUInt32LE(4)))
    this.problems.push(`block ${index} ${where}: ${found}${torn ? ' (torn)' : ''}, not ${block.acknowledged}${block.maybe.map(one => ` or ${one}`).join('')}`)
  }

  async #ask(frame: Partial<Frame>): Promise<Frame> {
    const sequence = this.#sequence++
    this.#peer!.send({...frame, sequence})
    const answer = await this.#peer!.next(60_000)
    if (answer.sequence !== sequence) throw new Error(`an answer to ${answer.sequence} instead of ${sequence}`)
    return answer
  }
}

/** What a block holds after the write of one generation. */
function content(block: number, generation: number): Buffer {
  const bytes = Buffer.alloc(BLOCK_BYTES)
  if (generation === 0) return bytes
  const unit = Buffer.alloc(16)
  unit.writeUInt32LE(block, 0)
  unit.writeUInt32LE(generation, 4)
  unit.writeUInt32LE(Math.imul(block ^ 0x5bd1e995, generation) >>> 0, 8)
  unit.writeUInt32LE(~generation >>> 0, 12)
  return bytes.fill(unit)
}

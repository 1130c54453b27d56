// A load that knows what it may find later: every sector that it writes says where it belongs and which write it is of, and
// of every block it is known which writes it has been asked for, which was acknowledged last, and which one is durable.
import {NbdError, type NbdClient} from '../../engine/frontends/nbd/support/nbd-client.js'
import {ERR, FLAG} from '../../engine/frontends/nbd/support/wire.js'
import type {Random} from '../../replica/support/random.js'

const BLOCK = 4096
const SECTOR = 512
const STAMP_BYTES = 16
/** More than one piece of what the engine cuts requests into. */
const MAX_BLOCKS = 80
/** What a new volume holds. */
const UNWRITTEN = 0

/** `killed`: processes died, and what was acknowledged has to be there. `power cut`: what was flushed has to be there. */
export type Disaster = 'killed' | 'power cut'

export class StampedBlocks {
  readonly #random: Random
  /** Of each block the changes that it may hold, in order; the first is durable. Changes of a block never overlap in time. */
  readonly #history: number[][]
  /** Of each block the last change that was acknowledged. */
  readonly #acknowledged: number[]
  /** Changes that leave zeros. */
  readonly #zeros = new Set<number>([UNWRITTEN])
  readonly #busy = new Set<number>()
  readonly #writeThrough: boolean
  #changes = 0
  #answers = 0

  /** `writeThrough`: every change that is acknowledged is durable. */
  constructor(sizeBytes: number, random: Random, {writeThrough = false} = {}) {
    this.#random = random
    this.#writeThrough = writeThrough
    this.#history = Array.from({length: sizeBytes / BLOCK}, () => [UNWRITTEN])
    this.#acknowledged = this.#history.map(() => UNWRITTEN)
  }

  /** Requests that have been answered, all of them well. */
  get answers(): number {
    return this.#answers
  }

  /** Keeps `depth` requests going until `done`, or until the server hangs up. Rejects when an answer is wrong. */
  async load(client: NbdClient, depth: number, done: () => boolean): Promise<void> {
    const worker = async (): Promise<void> => {
      while (!done()) if (!(await this.#request(client))) return
    }
    await Promise.all(Array.from({length: depth}, worker))
  }

  /** The blocks of a volume's content that hold what they must not after a disaster, one line each. */
  faults(content: Buffer, after: Disaster = 'killed'): string[] {
    return this.#history.flatMap((_, block) => this.#faultOf(block, content.subarray(block * BLOCK, (block + 1) * BLOCK), after) ?? [])
  }

  /** After a power cut what was only acknowledged may be gone, for good. */
  forgetWhatWasNotFlushed(): void {
    for (const [block, history] of this.#history.entries()) this.#acknowledged[block] = history[0]!
  }

  /** False when the connection is over. */
  async #request(client: NbdClient): Promise<boolean> {
    const blocks = this.#idleBlocks()
    for (const block of blocks) this.#busy.add(block)
    try {
      await this.#answered(client, blocks)
      this.#answers++
      return true
    } catch (error) {
      if (error instanceof NbdError ? error.errno === ERR.ESHUTDOWN : /hung up|is over|EPIPE|ECONNRESET/.test(String(error))) return false
      throw error
    } finally {
      for (const block of blocks) this.#busy.delete(block)
    }
  }

  async #answered(client: NbdClient, blocks: readonly number[]): Promise<void> {
    const offset = blocks[0]! * BLOCK
    const length = blocks.length * BLOCK
    const dice = this.#random.below(20)
    if (dice < 3) {
      const content = await client.read(offset, length)
      const faults = blocks.flatMap((block, index) => this.#faultOf(block, content.subarray(index * BLOCK, (index + 1) * BLOCK), 'killed') ?? [])
      if (faults.length > 0) throw new Error(`read under load: ${faults.join(', ')}`)
    } else if (dice === 3) {
      const before = [...this.#acknowledged]
      await client.flush()
      for (const [block, change] of before.entries()) this.#madeDurable(block, change)
    } else if (dice === 4) {
      // Nobody promises what it leaves.
      this.#begin(blocks, true)
      await client.discard(offset, length)
    } else if (dice < 7) {
      const change = this.#begin(blocks, true)
      const fua = this.#random.oneIn(4)
      await client.zeroes(offset, length, (dice === 5 ? FLAG.NO_HOLE : 0) | (fua ? FLAG.FUA : 0))
      this.#done(blocks, change, fua)
    } else {
      const change = this.#begin(blocks, false)
      const fua = dice === 7
      await client.write(offset, Buffer.concat(blocks.map(block => stamped(block, change))), fua)
      this.#done(blocks, change, fua)
    }
  }

  #begin(blocks: readonly number[], zeros: boolean): number {
    const change = ++this.#changes
    if (zeros) this.#zeros.add(change)
    for (const block of blocks) this.#history[block]!.push(change)
    return change
  }

  #done(blocks: readonly number[], change: number, fua: boolean): void {
    for (const block of blocks) {
      this.#acknowledged[block] = change
      if (fua || this.#writeThrough) this.#madeDurable(block, change)
    }
  }

  #madeDurable(block: number, change: number): void {
    const history = this.#history[block]!
    const at = history.indexOf(change)
    // Not there: something later is durable already.
    if (at > 0) history.splice(0, at)
  }

  /** Some blocks in a row that nobody is busy with. */
  #idleBlocks(): number[] {
    const total = this.#history.length
    const wanted = 1 + this.#random.below(this.#random.oneIn(8) ? MAX_BLOCKS : 4)
    let first = this.#random.below(total)
    while (this.#busy.has(first)) first = (first + 1) % total
    const blocks: number[] = []
    for (let block = first; block < total && blocks.length < wanted && !this.#busy.has(block); block++) blocks.push(block)
    return blocks
  }

  #faultOf(block: number, content: Buffer, after: Disaster): string | undefined {
    const history = this.#history[block]!
    const allowed = after === 'power cut' ? history : history.slice(history.indexOf(this.#acknowledged[block]!))
    const wrong = sectorsOf(content).find((sector, index) => !allowed.some(change => this.#holds(sector, block, index, change)))
    if (wrong === undefined) return undefined
    const found = wrong.every(byte => byte === 0) ? 'zeros' : `change ${wrong.readUInt32LE(8)} of block ${wrong.readUInt32LE(0)}`
    return `block ${block} holds ${found}, and not ${allowed.map(change => `${change}${this.#zeros.has(change) ? ' (zeros)' : ''}`).join(' or ')}`
  }

  #holds(sector: Buffer, block: number, index: number, change: number): boolean {
    return this.#zeros.has(change) ? sector.equals(ZEROS) : isStamped(sector, block, index, change)
  }
}

const ZEROS = Buffer.alloc(SECTOR)

function sectorsOf(content: Buffer): Buffer[] {
  return Array.from({length: content.length / SECTOR}, (_, index) => content.subarray(index * SECTOR, (index + 1) * SECTOR))
}

function stamped(block: number, change: number): Buffer {
  return Buffer.concat(Array.from({length: BLOCK / SECTOR}, (_, index) => stampedSector(block, index, change)))
}

function isStamped(sector: Buffer, block: number, index: number, change: number): boolean {
  const stamp = sector.readUInt32LE(0) === block && sector.readUInt32LE(4) === index && sector.readUInt32LE(8) === change && sector.readUInt32LE(12) === ~change >>> 0
  // All of it is the same stamp when it is equal to itself one stamp further on.
  return stamp && sector.subarray(STAMP_BYTES).equals(sector.subarray(0, SECTOR - STAMP_BYTES))
}

function stampedSector(block: number, index: number, change: number): Buffer {
  const stamp = Buffer.alloc(STAMP_BYTES)
  stamp.writeUInt32LE(block, 0)
  stamp.writeUInt32LE(index, 4)
  stamp.writeUInt32LE(change, 8)
  stamp.writeUInt32LE(~change >>> 0, 12)
  return Buffer.alloc(SECTOR, stamp)
}

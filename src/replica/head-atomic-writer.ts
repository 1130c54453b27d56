import {MAX_ATOMIC_BYTES, type AtomicJournal, type JournalledWrite} from './atomic-journal.js'
import {checkRange, endBlock, firstBlock, heldByHead, type HeadContext} from './head-context.js'
import type {HeadWriter} from './head-writer.js'
import {ioFailure} from './io-failure.js'
import {BLOCK_BYTES} from './sector-map.js'

/** Writes all of something or nothing, whatever fails: each write is in the journal until it is whole on the disk. */
export class HeadAtomicWriter {
  /** The last write. */
  #last: Promise<void> = Promise.resolve()

  constructor(
    readonly context: HeadContext,
    readonly writer: HeadWriter,
    readonly journal: AtomicJournal,
  ) {}

  /**
   * Resolves when all of `data`, of at most MAX_ATOMIC_BYTES, survives a power cut. Nothing else changes that range meanwhile, and `data`
   * belongs to the write until then. RangeError for more, or outside the volume; NO_SPACE and IO when the disk refuses.
   */
  async write(data: Buffer, offset: number): Promise<void> {
    const {stack, gate, locks} = this.context
    if (gate.reason !== undefined) throw gate.reason
    checkRange(stack, offset, data.length)
    if (data.length > MAX_ATOMIC_BYTES) throw new RangeError(`${data.length} bytes cannot be written at once`)
    if (data.length === 0) return
    const ticket = locks.acquire(firstBlock(offset), endBlock(offset, data.length))
    try {
      if (ticket.ready !== undefined) await ticket.ready
      gate.checkFailure()
      await this.writer.copyUp(offset, data.length)
      // There is one journal: whoever follows waits for it.
      const written = this.#last.then(() => this.#writeJournalled(data, offset))
      this.#last = written.catch(() => undefined)
      await written
    } finally {
      locks.release(ticket)
    }
  }

  /** Makes good a write that a crash or power cut interrupted. The replica has just been opened, and nothing has been written. */
  async finish({data, offset}: JournalledWrite): Promise<void> {
    const {stack, flusher} = this.context
    if (offset + data.length > stack.sizeBytes) return
    // Not journalled anew: stopped in the middle of that, there would be no whole journal for it.
    this.writer.writeNow(data, 0, data.length, offset)
    await flusher.sync()
    await this.journal.end()
  }

  /** Closes the journal; no write may be under way. */
  close(): Promise<void> {
    return this.journal.close()
  }

  async #writeJournalled(data: Buffer, offset: number): Promise<void> {
    const {reader, counter, flusher} = this.context
    try {
      const before = Buffer.allocUnsafe(data.length)
      await reader.read(before, 0, data.length, offset)
      await this.journal.begin(offset, data)
      counter?.add()
      try {
        this.writer.writeNow(data, 0, data.length, offset)
      } catch (error) {
        this.#restore(before, offset)
        await flusher.sync()
        await this.journal.end()
        throw error
      }
      await flusher.sync()
      await this.journal.end()
    } catch (error) {
      throw ioFailure(`writing ${data.length} bytes at ${offset} at once in ${this.journal.directory}`, error)
    }
  }

  /** After a write that failed half-way, on a full disk: what the head holds gets its old content back, which takes no space. */
  #restore(before: Buffer, offset: number): void {
    const end = offset + before.length
    const inBlock = offset % BLOCK_BYTES
    for (const held of heldByHead(this.context.stack, offset - inBlock, before.length + inBlock)) {
      const from = Math.max(offset, held.offset)
      const to = Math.min(end, held.offset + held.length)
      if (to > from) this.writer.writeNow(before, from - offset, to - from, from)
    }
  }
}

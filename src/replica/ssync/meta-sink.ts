import {LonghornError} from '../../lib/errors.js'
import {parseLayerMeta, type LayerMeta} from '../layer-meta.js'
import type {Interval} from './exchange.js'
import type {Sink} from './sink.js'

/** A description with all the labels that anybody needs is far smaller. */
const MAX_META_BYTES = 256 * 1024

/** Receives the description of a layer, in memory: it is checked as a whole before it replaces anything. */
export class MetaSink implements Sink {
  readonly maxBytes = MAX_META_BYTES
  #content = Buffer.alloc(0)

  /** `file` names it in errors; `accept` is given what it says, and the transfer fails with what it throws. */
  constructor(
    readonly file: string,
    readonly accept: (meta: LayerMeta) => Promise<void>,
  ) {}

  async open(sizeBytes: number): Promise<boolean> {
    this.#content = Buffer.alloc(sizeBytes)
    return false
  }

  async write(data: Buffer, offset: number): Promise<void> {
    data.copy(this.#content, offset)
  }

  async punch({begin, end}: Interval): Promise<void> {
    this.#content.fill(0, begin, end)
  }

  async checksum(): Promise<undefined> {
    return undefined
  }

  async recorded(): Promise<string> {
    throw new LonghornError('NOT_FOUND', `no checksum is recorded of ${this.file}`)
  }

  async finish(): Promise<void> {
    await this.accept(parseLayerMeta(this.#content.toString('utf8'), `the received ${this.file}`))
  }

  async abandon(): Promise<void> {
    this.#content = Buffer.alloc(0)
  }
}

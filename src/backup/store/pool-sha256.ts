import {createHash, createHmac, type Hash, type Hmac} from 'node:crypto'

/** From this size on the detour through the thread pool costs less than it saves. */
const POOL_FROM_BYTES = 64 * 1024

type Source = string | ArrayBuffer | ArrayBufferView

/** SHA-256 for the signatures of S3 requests, as the SDK asks for it: over whole blocks in the thread pool, so that the event loop goes on meanwhile. */
export class PoolSha256 {
  readonly #secret: Source | undefined
  #hash: Hash | Hmac
  /** What is to be hashed, as long as it is one piece. */
  #only: Uint8Array | undefined
  #pieces = 0

  constructor(secret?: Source) {
    this.#secret = secret
    this.#hash = this.#fresh()
  }

  update(data: Uint8Array): void {
    if (this.#pieces++ === 0 && this.#secret === undefined && data instanceof Uint8Array && data.length >= POOL_FROM_BYTES) {
      this.#only = data
      return
    }
    if (this.#only !== undefined) this.#hash.update(this.#only)
    this.#only = undefined
    this.#hash.update(data)
  }

  async digest(): Promise<Uint8Array> {
    if (this.#only !== undefined) return new Uint8Array(await crypto.subtle.digest('SHA-256', this.#only))
    return this.#hash.digest()
  }

  reset(): void {
    this.#hash = this.#fresh()
    this.#only = undefined
    this.#pieces = 0
  }

  #fresh(): Hash | Hmac {
    if (this.#secret === undefined) return createHash('sha256')
    return createHmac('sha256', typeof this.#secret === 'string' ? this.#secret : bytesOf(this.#secret))
  }
}

function bytesOf(source: ArrayBuffer | ArrayBufferView): Uint8Array {
  return ArrayBuffer.isView(source) ? new Uint8Array(source.buffer, source.byteOffset, source.byteLength) : new Uint8Array(source)
}

import {createHash, createHmac, type Hash, type Hmac} from 'node:crypto'

/** From this many bytes on the thread pool does it: a block of 16 MiB would keep the event loop, and so the volume's I/O, for 10 ms. */
const POOLED_FROM_BYTES = 64 * 1024

type Data = string | ArrayBuffer | ArrayBufferView

/** SHA-256 and HMAC-SHA-256 as the AWS SDK wants them (its interface Checksum), for signing requests. What is signed must not change until the digest is there. */
export class PooledSha256 {
  readonly #secret: Uint8Array | undefined
  #hash: Hash | Hmac
  /** All of it, where that is one large piece. */
  #whole: Uint8Array | undefined
  #begun = false

  constructor(secret?: Data) {
    this.#secret = secret === undefined ? undefined : bytesOf(secret)
    this.#hash = this.#start()
  }

  update(data: Data): void {
    const bytes = bytesOf(data)
    if (this.#whole !== undefined) this.#hash.update(this.#whole)
    const alone = !this.#begun && this.#secret === undefined && bytes.length >= POOLED_FROM_BYTES
    this.#whole = alone ? bytes : undefined
    if (!alone) this.#hash.update(bytes)
    this.#begun = true
  }

  async digest(): Promise<Uint8Array> {
    if (this.#whole !== undefined) return new Uint8Array(await crypto.subtle.digest('SHA-256', this.#whole))
    return this.#hash.digest()
  }

  reset(): void {
    this.#hash = this.#start()
    this.#whole = undefined
    this.#begun = false
  }

  #start(): Hash | Hmac {
    return this.#secret === undefined ? createHash('sha256') : createHmac('sha256', this.#secret)
  }
}

function bytesOf(data: Data): Uint8Array {
  if (typeof data === 'string') return Buffer.from(data)
  return ArrayBuffer.isView(data) ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength) : new Uint8Array(data)
}

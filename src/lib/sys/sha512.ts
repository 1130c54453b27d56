// SHA-512 in the thread pool, without the copy of the data that WebCrypto makes first, in the event loop.
// Node exports the OpenSSL that it is linked to (Node.js documentation, "C++ addons", "Linking to libraries included with Node.js").
import koffi, {type KoffiFunc} from 'koffi'
import {bufferAddress} from './buffer-address.js'

const DIGEST_BYTES = 64

type Digest = (data: number, bytes: number, digest: number) => number

/** SHA512 of openssl/sha.h; undefined in a Node that does not export it. */
const digestOf = load()

/** `data` must not change meanwhile. */
export async function sha512(data: Uint8Array): Promise<Buffer> {
  if (digestOf === undefined) return Buffer.from(await crypto.subtle.digest('SHA-512', data))
  const digest = Buffer.allocUnsafeSlow(DIGEST_BYTES)
  await new Promise<void>((resolve, reject) => {
    // The closures keep both buffers alive.
    digestOf.async(bufferAddress(data), data.length, bufferAddress(digest), (error: Error | null, result: number | bigint) =>
      error === null && Number(result) !== 0 ? resolve() : reject(error ?? new Error('SHA512 failed')),
    )
  })
  return digest
}

function load(): KoffiFunc<Digest> | undefined {
  try {
    return koffi.load(null).func('uintptr_t SHA512(uintptr_t data, size_t bytes, uintptr_t digest)') as KoffiFunc<Digest>
  } catch {
    // Hidden in this build: WebCrypto does it.
    return undefined
  }
}

// CHAP as iSCSI uses it, RFC 7143 section 12.1.3. The one who asks sends an algorithm's number, an identifier and a challenge;
// the one who answers sends its name and hash(identifier, secret, challenge). Initiators prove themselves; in mutual CHAP
// they then ask the same of the target, which has a secret of its own.
import {createHash, randomBytes, randomInt, timingSafeEqual} from 'node:crypto'

/** Who somebody is, and how it is proved. */
export interface Credentials {
  readonly name: string
  readonly secret: string
}

/** What a target asks of initiators, and answers when they ask. */
export interface ChapSettings {
  readonly initiator: Credentials
  readonly target: Credentials | undefined
}

/** Registered numbers (IANA, "PPP Authentication Algorithms") and Node's names; those that this OpenSSL lets us use. */
const ALGORITHMS: ReadonlyMap<string, string> = new Map(
  Object.entries({5: 'md5', 6: 'sha1', 7: 'sha256', 8: 'sha3-256'}).filter(([, name]) => isUsable(name)),
)
const CHALLENGE_BYTES = 32
const MOST_BINARY_BYTES = 1024

/** The first algorithm of an initiator's list that we have, as its number. */
export function chooseAlgorithm(list: string): string | undefined {
  return list.split(',').find(number => ALGORITHMS.has(number))
}

/** A question that has been put to an initiator. */
export class Challenge {
  readonly identifier = randomInt(256)
  readonly bytes = randomBytes(CHALLENGE_BYTES)

  constructor(readonly algorithm: string) {}

  /** True for the right name with the right response to this challenge. Takes as long for a wrong name as for a wrong secret. */
  isAnsweredBy(name: string, response: Buffer, expected: Credentials): boolean {
    const wanted = chapResponse(this.algorithm, this.identifier, expected.secret, this.bytes)
    const rightName = equals(Buffer.from(name), Buffer.from(expected.name))
    const rightResponse = equals(response, wanted)
    return rightName && rightResponse
  }
}

/** What proves knowledge of the secret. */
export function chapResponse(algorithm: string, identifier: number, secret: string, challenge: Buffer): Buffer {
  return createHash(ALGORITHMS.get(algorithm)!).update(Buffer.of(identifier)).update(secret).update(challenge).digest()
}

/** A binary value as text: `0x…`. */
export function formatBinary(bytes: Buffer): string {
  return `0x${bytes.toString('hex')}`
}

/** The bytes of `0x…` (hexadecimal) or `0b…` (base64); undefined when it is neither or too long. */
export function parseBinary(text: string): Buffer | undefined {
  const bytes = decode(text)
  return bytes !== undefined && bytes.length > 0 && bytes.length <= MOST_BINARY_BYTES ? bytes : undefined
}

function decode(text: string): Buffer | undefined {
  const digits = text.slice(2)
  if (/^0x[\da-f]+$/i.test(text)) return Buffer.from(digits.length % 2 === 0 ? digits : `0${digits}`, 'hex')
  return /^0b[\da-z+/]+={0,2}$/i.test(text) ? Buffer.from(digits, 'base64') : undefined
}

/** MD5 and others are switched off on hosts in FIPS mode. */
function isUsable(name: string): boolean {
  try {
    createHash(name)
    return true
  } catch {
    return false
  }
}

function equals(a: Buffer, b: Buffer): boolean {
  return a.length === b.length && timingSafeEqual(a, b)
}

// The exchange of one file between replicas, upstream's: HTTP/1.1, /v1-ssync/ACTION, parameters in the query string.
//
//     GET  open                 begin=0 end=SIZE directIO        → true or false: whether the receiver had the file
//     POST sendHole             begin end
//     GET  getChecksum          begin end                        → null, or the SHA-512 in base64: JSON either way
//     POST writeData            begin end; body: the data        the last piece may be shorter than that
//     GET  getRecordedMetadata                                   → the .checksum file; 404: there is none, 500: it is outdated
//     POST close                checksumMethod checksum          always the last one, also after a failure
import {LonghornError} from '../../lib/errors.js'

export const PATH_PREFIX = '/v1-ssync/'

/** The verb of every action. */
export const ACTIONS = {
  open: 'GET',
  sendHole: 'POST',
  getChecksum: 'GET',
  writeData: 'POST',
  getRecordedMetadata: 'GET',
  close: 'POST',
} as const

export type Action = keyof typeof ACTIONS

/** Senders cut data into pieces of this many bytes. */
export const PIECE_BYTES = 2 * 1024 * 1024

/** The most that one writeData or getChecksum is about. */
export const MAX_PIECE_BYTES = 8 * 1024 * 1024

/** Direct I/O, which upstream's peers use, needs multiples of this. */
export const DIRECT_BYTES = 4096

/** Bytes [begin, end) of the file. */
export interface Interval {
  readonly begin: number
  readonly end: number
}

/** The parameters begin and end of a query. USAGE when they are missing or no range. */
export function intervalOf(query: URLSearchParams): Interval {
  const begin = bytesOf(query, 'begin')
  const end = bytesOf(query, 'end')
  if (begin > end) throw new LonghornError('USAGE', `begin=${begin} lies after end=${end}`)
  return {begin, end}
}

/** Whether directIO is asked for. USAGE when the query does not say. */
export function directIoOf(query: URLSearchParams): boolean {
  const value = query.get('directIO')
  if (value === 'true') return true
  if (value === 'false') return false
  throw new LonghornError('USAGE', `directIO is ${show(value)}: expected true or false`)
}

function bytesOf(query: URLSearchParams, name: string): number {
  const text = query.get(name)
  const value = Number(text)
  if (text !== null && /^\d{1,16}$/.test(text) && Number.isSafeInteger(value)) return value
  throw new LonghornError('USAGE', `${name} is ${show(text)}: expected a number of bytes`)
}

function show(value: string | null): string {
  return value === null ? 'missing' : JSON.stringify(value.slice(0, 64))
}

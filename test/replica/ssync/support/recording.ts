import {readFileSync} from 'node:fs'
import {fileURLToPath} from 'node:url'

/** Bytes of one connection and one side, in a recording of test/fixtures/upstream-ssync. */
export interface Run {
  readonly connection: number
  readonly from: 'sender' | 'receiver'
  readonly bytes: Buffer
}

export interface HttpMessage {
  /** `GET /v1-ssync/open?…` or `200`. */
  readonly start: string
  readonly body: Buffer
}

export function recording(name: string): Run[] {
  const path = fileURLToPath(new URL(`../../../fixtures/upstream-ssync/${name}.json`, import.meta.url))
  const runs = JSON.parse(readFileSync(path, 'utf8')) as {connection: number; from: Run['from']; bytes: string}[]
  return runs.map(run => ({...run, bytes: Buffer.from(run.bytes.replace(/\u0001(.)/gs, (_, byte: string) => byte.repeat(4096)), 'latin1')}))
}

/** The first message in these bytes, with what follows it; undefined when it is not whole yet. */
export function parseMessage(bytes: Buffer): {message: HttpMessage; rest: Buffer} | undefined {
  const headEnd = bytes.indexOf('\r\n\r\n')
  if (headEnd < 0) return undefined
  const [first = '', ...lines] = bytes.subarray(0, headEnd).toString('latin1').split('\r\n')
  const headers = new Map(lines.map(line => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()]))
  const start = first.startsWith('HTTP/1.1 ') ? first.slice(9, 12) : first.replace(/ HTTP\/1\.1$/, '')
  const bodyStart = headEnd + 4
  // The only chunked bodies here are empty, and not always ended.
  if (headers.get('transfer-encoding') === 'chunked') return {message: {start, body: Buffer.alloc(0)}, rest: bytes.subarray(bytes.length)}
  const length = Number(headers.get('content-length') ?? 0)
  if (bytes.length < bodyStart + length) return undefined
  return {message: {start, body: bytes.subarray(bodyStart, bodyStart + length)}, rest: bytes.subarray(bodyStart + length)}
}

/** The action of a request and its parameters, in one order whatever theirs was. */
export function requestKey(start: string): string {
  const [method = '', target = ''] = start.split(' ')
  const {pathname, searchParams} = new URL(target, 'http://x')
  searchParams.sort()
  return `${method} ${pathname} ${searchParams.toString()}`
}

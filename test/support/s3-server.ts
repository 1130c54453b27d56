import {createHash} from 'node:crypto'
import {createServer, type IncomingMessage, type ServerResponse} from 'node:http'
import {createServer as createTlsServer} from 'node:https'
import type {AddressInfo} from 'node:net'
import type {Test} from 'tap'

/**
 * What happens to a request instead of its answer. `cut`: the connection ends in the middle of the answer. `damage`: a byte of what is stored or sent is another one.
 * `etag`: what is stored and sent is right, and the ETag is that of something else.
 */
export type Fault = {readonly status: number; readonly code: string} | 'cut' | 'reset' | 'damage' | 'etag' | undefined

/** How far the clock of a client may be off. */
const MAX_SKEW_MS = 900_000

export interface S3ServerOptions {
  readonly accessKey?: string
  readonly pageSize?: number
  readonly tls?: {readonly key: string; readonly cert: string}
  /** What every request must bring along. */
  readonly sessionToken?: string
  /** How far the server's clock is ahead. */
  readonly aheadMs?: number
}

interface Stored {
  readonly data: Buffer
  readonly modified: Date
}

/** As much of S3 as backups need, in memory, path style, one bucket. Checks who asks and that contents are what was signed; does not check signatures. */
export class S3Server {
  readonly objects = new Map<string, Stored>()
  /** Method and key of every request. */
  readonly requests: string[] = []
  /** Host and target of every request, as they were sent. */
  readonly targets: string[] = []
  /** Asked before each request is answered. */
  fault: (method: string, key: string) => Fault = () => undefined
  /** Waited for before each request is answered. */
  gate: (method: string, key: string) => Promise<void> = async () => undefined
  endpoint = ''

  constructor(readonly options: S3ServerOptions = {}) {}

  static readonly bucket = 'backups'

  async start(t: Pick<Test, 'teardown'>): Promise<this> {
    const handle = (request: IncomingMessage, response: ServerResponse): void => void this.#serve(request, response)
    const {tls} = this.options
    const server = tls === undefined ? createServer(handle) : createTlsServer(tls, handle)
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
    t.teardown(() => {
      server.closeAllConnections()
      server.close()
    })
    this.endpoint = `${tls === undefined ? 'http' : 'https'}://127.0.0.1:${(server.address() as AddressInfo).port}`
    return this
  }

  /** What a client of this server has in its environment. */
  get env(): Record<string, string> {
    return {AWS_ENDPOINTS: this.endpoint, AWS_ACCESS_KEY_ID: this.options.accessKey ?? 'key', AWS_SECRET_ACCESS_KEY: 'secret'}
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = []
    try {
      for await (const chunk of request) chunks.push(chunk as Buffer)
    } catch {
      // The client has gone, and nothing of its request counts.
      return
    }
    const body = Buffer.concat(chunks)
    const url = new URL(request.url ?? '/', 'http://host')
    const host = request.headers.host ?? ''
    const hostStyle = host.startsWith(`${S3Server.bucket}.`)
    const [bucket = '', ...rest] = hostStyle ? [S3Server.bucket, ...decodeURIComponent(url.pathname).split('/').slice(1)] : decodeURIComponent(url.pathname).split('/').slice(1)
    const key = rest.join('/')
    this.targets.push(`${host} ${request.url}`)
    const method = request.method ?? ''
    this.requests.push(`${method} ${key === '' ? `?prefix=${url.searchParams.get('prefix') ?? ''}` : key}`)
    await this.gate(method, key)
    const fault = this.fault(method, key)
    if (fault === 'reset') return void request.socket.destroy()
    if (typeof fault === 'object') return fail(response, fault.status, fault.code)
    const credential = `Credential=${this.options.accessKey ?? 'key'}/`
    if (!(request.headers.authorization ?? '').includes(credential)) return fail(response, 403, 'InvalidAccessKeyId')
    if (this.options.sessionToken !== undefined && request.headers['x-amz-security-token'] !== this.options.sessionToken) return fail(response, 403, 'InvalidToken')
    if (!this.#isOnTime(request, response)) return fail(response, 403, 'RequestTimeTooSkewed')
    if (request.headers['x-amz-content-sha256'] !== createHash('sha256').update(body).digest('hex')) return fail(response, 400, 'XAmzContentSHA256Mismatch')
    if (bucket !== S3Server.bucket) return fail(response, 404, 'NoSuchBucket')
    if (key === '') return this.#list(url.searchParams, response)
    this.#object(method, key, body, response, fault)
  }

  #isOnTime(request: IncomingMessage, response: ServerResponse): boolean {
    if (this.options.aheadMs === undefined) return true
    const now = Date.now() + this.options.aheadMs
    response.setHeader('date', new Date(now).toUTCString())
    const [, day = '', time = ''] = /^(\d{8})T(\d{6})Z$/.exec(String(request.headers['x-amz-date'])) ?? []
    const signed = Date.parse(`${day.replace(/(....)(..)(..)/, '$1-$2-$3')}T${time.replace(/(..)(..)(..)/, '$1:$2:$3')}Z`)
    return Math.abs(now - signed) < MAX_SKEW_MS
  }

  #object(method: string, key: string, body: Buffer, response: ServerResponse, fault: Fault): void {
    const stored = this.objects.get(key)
    if (method === 'PUT') {
      this.objects.set(key, {data: fault === 'damage' ? damaged(body) : body, modified: new Date()})
      return void response.writeHead(200, {etag: etagOf(body, fault)}).end()
    }
    if (method === 'DELETE') {
      this.objects.delete(key)
      return void response.writeHead(204).end()
    }
    if (stored === undefined) return fail(response, 404, 'NoSuchKey')
    response.writeHead(200, {'content-length': stored.data.length, 'last-modified': stored.modified.toUTCString(), etag: etagOf(stored.data, fault)})
    if (method === 'HEAD') return void response.end()
    if (fault !== 'cut') return void response.end(fault === 'damage' ? damaged(stored.data) : stored.data)
    response.write(stored.data.subarray(0, stored.data.length / 2), () => response.destroy())
  }

  #list(query: URLSearchParams, response: ServerResponse): void {
    const prefix = query.get('prefix') ?? ''
    const delimiter = query.get('delimiter')
    const limit = Math.min(this.options.pageSize ?? 1000, Number(query.get('max-keys') ?? 1000))
    const after = query.get('continuation-token') ?? ''
    const entries = new Map<string, string>()
    for (const [key, {data, modified}] of [...this.objects].sort(([a], [b]) => (a < b ? -1 : 1))) {
      if (!key.startsWith(prefix)) continue
      const end = delimiter === null ? -1 : key.indexOf(delimiter, prefix.length)
      const name = end === -1 ? key : key.slice(0, end + 1)
      entries.set(name, end === -1 ? `<Contents><Key>${key}</Key><Size>${data.length}</Size><LastModified>${modified.toISOString()}</LastModified></Contents>` : `<CommonPrefixes><Prefix>${name}</Prefix></CommonPrefixes>`)
    }
    const left = [...entries].filter(([name]) => name > after)
    const page = left.slice(0, limit)
    const more = left.length > page.length ? `<IsTruncated>true</IsTruncated><NextContinuationToken>${page.at(-1)![0]}</NextContinuationToken>` : '<IsTruncated>false</IsTruncated>'
    response.writeHead(200, {'content-type': 'application/xml'}).end(`<ListBucketResult>${more}${page.map(([, text]) => text).join('')}</ListBucketResult>`)
  }
}

function etagOf(data: Buffer, fault: Fault): string {
  return `"${createHash('md5').update(fault === 'etag' ? 'something else' : data).digest('hex')}"`
}

function damaged(data: Buffer): Buffer {
  const copy = Buffer.from(data)
  copy[Math.floor(copy.length / 2)]! ^= 1
  return copy
}

function fail(response: ServerResponse, status: number, code: string): void {
  response.writeHead(status, {'content-type': 'application/xml'}).end(`<Error><Code>${code}</Code><Message>${code} it is</Message></Error>`)
}

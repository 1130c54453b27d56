// The one file that knows the AWS SDK. Any server that speaks S3 will do: only ListObjectsV2, HEAD, GET, PUT and DELETE of single objects are used.
import type {Readable} from 'node:stream'
import {rootCertificates} from 'node:tls'
import {DeleteObjectCommand, GetObjectCommand, HeadObjectCommand, ListObjectsV2Command, PutObjectCommand, S3Client, type ListObjectsV2CommandOutput} from '@aws-sdk/client-s3'
import {isKind, LonghornError, type ErrorKind} from '../../lib/errors.js'
import type {TargetUrl} from '../target-url.js'
import type {BackupKeys} from '../encryption/backup-keys.js'
import {ProxyHttpAgent, ProxyHttpsAgent} from './http-proxy.js'
import {PooledSha256} from './pooled-sha256.js'
import {cannotFind, checkFolder, checkKey, tooLarge, type BackupStore, type Folder, type StoredObject} from './backup-store.js'

/** Requests at once; others wait for a connection. */
const CONNECTIONS = 64
const ATTEMPTS = 5
const CONNECT_TIMEOUT_MS = 10_000
/** Without a byte, either way. */
const IDLE_TIMEOUT_MS = 60_000
/** An answer that breaks off is asked for again this many times; the SDK knows nothing of it. */
const BODY_ATTEMPTS = 3

const ENV = {
  key: 'AWS_ACCESS_KEY_ID',
  secret: 'AWS_SECRET_ACCESS_KEY',
  token: 'AWS_SESSION_TOKEN',
  endpoint: 'AWS_ENDPOINTS',
  certificates: 'AWS_CERT',
  hostStyle: 'VIRTUAL_HOSTED_STYLE',
} as const

type Env = Readonly<Record<string, string | undefined>>

/**
 * A bucket: `s3://bucket@region/path`, or `s3://bucket/path` with the region from AWS_REGION. The path may be `/`. Settings have upstream's names; credentials are those of the
 * environment, and without them the SDK finds its own (shared file, web identity, role of the instance). Objects below other prefixes are never looked at.
 */
export class S3Store implements BackupStore {
  keys: BackupKeys | undefined
  readonly #client: S3Client
  readonly #bucket: string
  /** '' or `path/`. */
  readonly #prefix: string

  private constructor(
    readonly url: string,
    client: S3Client,
    bucket: string,
    prefix: string,
  ) {
    this.#client = client
    this.#bucket = bucket
    this.#prefix = prefix
  }

  /** Looks whether the bucket can be listed. USAGE for settings that make no sense and for credentials that are refused. */
  static async open(url: TargetUrl, env: Env): Promise<S3Store> {
    const bucket = url.user === '' ? url.host : url.user
    const region = (url.user === '' ? undefined : url.host) ?? (env.AWS_REGION || env.AWS_DEFAULT_REGION)
    if (bucket === '' || url.path === '') throw new LonghornError('USAGE', `${url.target}: expected s3://bucket@region/path`)
    if (region === undefined || region === '') throw new LonghornError('USAGE', `${url.target}: which region? Expected s3://${bucket}@REGION/path, or AWS_REGION in the environment`)
    const path = url.path.replace(/^\/+|\/+$/g, '').replace(/\/+/g, '/')
    if (path !== '') checkKey(path)
    const store = new S3Store(url.target, createClient(region, env), bucket, path === '' ? '' : `${path}/`)
    try {
      await store.#page('backupstore/', {MaxKeys: 1})
    } catch (error) {
      await store.close()
      throw error
    }
    return store
  }

  async *list(folder: string, signal?: AbortSignal): AsyncIterable<StoredObject> {
    for await (const page of this.#pages(folder, {}, signal)) yield* this.#objectsOf(page)
  }

  async children(folder: string, signal?: AbortSignal): Promise<Folder> {
    const folders: string[] = []
    const objects: StoredObject[] = []
    for await (const page of this.#pages(folder, {Delimiter: '/'}, signal)) {
      for (const {Prefix = ''} of page.CommonPrefixes ?? []) folders.push(Prefix.slice(this.#prefix.length + folder.length, -1))
      objects.push(...this.#objectsOf(page))
    }
    return {folders: folders.sort(), objects}
  }

  async head(key: string, signal?: AbortSignal): Promise<StoredObject | undefined> {
    try {
      const {ContentLength, LastModified} = await this.#client.send(new HeadObjectCommand(this.#at(key)), {...abortedBy(signal)})
      return {key, sizeBytes: ContentLength ?? 0, modifiedMs: LastModified?.getTime() ?? 0}
    } catch (error) {
      const failure = this.#failure(`looking for ${key}`, key, error, signal)
      if (isKind(failure, 'NOT_FOUND')) return undefined
      throw failure
    }
  }

  async get(key: string, maxBytes: number, signal?: AbortSignal, room?: Buffer): Promise<Buffer> {
    for (let attempt = 1; ; attempt++) {
      try {
        const {Body, ContentLength} = await this.#client.send(new GetObjectCommand(this.#at(key)), {...abortedBy(signal)})
        return await this.#receive(key, Body as Readable, {expected: ContentLength, maxBytes, room}, signal)
      } catch (error) {
        const failure = this.#failure(`reading ${key}`, key, error, signal)
        if (attempt === BODY_ATTEMPTS || !isKind(failure, 'UNREACHABLE')) throw failure
      }
    }
  }

  async put(key: string, data: Uint8Array, signal?: AbortSignal): Promise<void> {
    try {
      await this.#client.send(new PutObjectCommand({...this.#at(key), Body: data, ContentLength: data.length}), {...abortedBy(signal)})
    } catch (error) {
      throw this.#failure(`writing ${key}`, key, error, signal)
    }
  }

  async remove(key: string, signal?: AbortSignal): Promise<void> {
    try {
      await this.#client.send(new DeleteObjectCommand(this.#at(key)), {...abortedBy(signal)})
    } catch (error) {
      const failure = this.#failure(`removing ${key}`, key, error, signal)
      if (!isKind(failure, 'NOT_FOUND')) throw failure
    }
  }

  async close(): Promise<void> {
    this.#client.destroy()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async *#pages(folder: string, options: {Delimiter?: string}, signal?: AbortSignal): AsyncIterable<ListObjectsV2CommandOutput> {
    checkFolder(folder)
    let token: string | undefined
    do {
      const page = await this.#page(folder, {...options, ...(token === undefined ? {} : {ContinuationToken: token})}, signal)
      yield page
      if (page.IsTruncated === true && (page.NextContinuationToken === undefined || page.NextContinuationToken === token)) {
        throw new LonghornError('PROTOCOL', `backup store ${this.url}: a listing that says there is more, and not where: the server does not speak ListObjectsV2`)
      }
      token = page.IsTruncated === true ? page.NextContinuationToken : undefined
    } while (token !== undefined)
  }

  async #page(folder: string, options: {Delimiter?: string; MaxKeys?: number; ContinuationToken?: string}, signal?: AbortSignal): Promise<ListObjectsV2CommandOutput> {
    try {
      return await this.#client.send(new ListObjectsV2Command({Bucket: this.#bucket, Prefix: `${this.#prefix}${folder}`, ...options}), {...abortedBy(signal)})
    } catch (error) {
      const failure = this.#failure(`listing ${folder}`, folder, error, signal)
      // A folder that is not there is an empty page: this is about the bucket.
      if (isKind(failure, 'NOT_FOUND')) throw new LonghornError('USAGE', `backup store ${this.url}: there is no bucket ${this.#bucket}`, {}, {cause: failure})
      throw failure
    }
  }

  #objectsOf(page: ListObjectsV2CommandOutput): StoredObject[] {
    return (page.Contents ?? []).flatMap(({Key = '', Size = 0, LastModified}) =>
      // Some consoles make an object for each folder.
      Key.endsWith('/') || !Key.startsWith(this.#prefix) ? [] : [{key: Key.slice(this.#prefix.length), sizeBytes: Size, modifiedMs: LastModified?.getTime() ?? 0}],
    )
  }

  async #receive(key: string, body: Readable, {expected, maxBytes, room}: {expected: number | undefined; maxBytes: number; room: Buffer | undefined}, signal?: AbortSignal): Promise<Buffer> {
    const into = room !== undefined && room.length >= maxBytes ? room : undefined
    const chunks: Buffer[] = []
    let bytes = 0
    try {
      if ((expected ?? 0) > maxBytes) throw tooLarge(key, this.url, expected!, maxBytes)
      for await (const chunk of body) {
        signal?.throwIfAborted()
        const at = bytes
        bytes += (chunk as Buffer).length
        if (bytes > maxBytes) throw tooLarge(key, this.url, bytes, maxBytes)
        if (into === undefined) chunks.push(chunk as Buffer)
        else (chunk as Buffer).copy(into, at)
      }
    } finally {
      body.destroy()
    }
    if (expected !== undefined && bytes !== expected) throw new LonghornError('UNREACHABLE', `backup store ${this.url}: reading ${key}: the answer broke off after ${bytes} of ${expected} bytes`)
    return into?.subarray(0, bytes) ?? Buffer.concat(chunks)
  }

  #at(key: string): {Bucket: string; Key: string} {
    checkKey(key)
    return {Bucket: this.#bucket, Key: `${this.#prefix}${key}`}
  }

  /** The SDK's errors carry the request with them, and so tokens: only name and text are taken over. */
  #failure(doing: string, key: string, error: unknown, signal: AbortSignal | undefined): unknown {
    if (signal?.aborted === true) return signal.reason
    if (error instanceof LonghornError || error instanceof RangeError || !(error instanceof Error)) return error
    const status = (error as {$metadata?: {httpStatusCode?: number}}).$metadata?.httpStatusCode
    const kind = kindOf(error, status)
    if (kind === 'NOT_FOUND') return cannotFind(key, this.url)
    const what = status === undefined ? error.message : describe(error, status)
    return new LonghornError(kind, `backup store ${this.url}: ${doing}: ${what}`)
  }
}

function createClient(region: string, env: Env): S3Client {
  // The SDK would write to stderr that it is going to need a newer Node: nothing that a user of this version can do anything about, and mail from cron each night.
  process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED ??= 'true'
  const endpoint = env[ENV.endpoint] || undefined
  const certificates = env[ENV.certificates] || undefined
  const agent = {keepAlive: true, maxSockets: CONNECTIONS}
  const style = env[ENV.hostStyle]
  const credentials = credentialsOf(env)
  return new S3Client({
    region,
    ...(endpoint === undefined ? {} : {endpoint}),
    ...(credentials === undefined ? {} : {credentials}),
    forcePathStyle: style === 'true' ? false : style === 'false' || endpoint !== undefined,
    maxAttempts: ATTEMPTS,
    // What SDKs have begun to add to every request, many servers refuse. Requests are signed over their content anyway.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    sha256: PooledSha256,
    requestHandler: {
      connectionTimeout: CONNECT_TIMEOUT_MS,
      socketTimeout: IDLE_TIMEOUT_MS,
      httpAgent: new ProxyHttpAgent(env, agent),
      httpsAgent: new ProxyHttpsAgent(env, {...agent, ...(certificates === undefined ? {} : {ca: [...rootCertificates, certificates]})}),
    },
  })
}

function credentialsOf(env: Env): {accessKeyId: string; secretAccessKey: string; sessionToken?: string} | undefined {
  const [accessKeyId = '', secretAccessKey = '', sessionToken = ''] = [env[ENV.key], env[ENV.secret], env[ENV.token]]
  if (accessKeyId === '' && secretAccessKey === '') return undefined
  if (accessKeyId === '') throw new LonghornError('USAGE', `s3 credential access key not found: ${ENV.secret} is set and ${ENV.key} is not`)
  if (secretAccessKey === '') throw new LonghornError('USAGE', `s3 credential secret access key not found: ${ENV.key} is set and ${ENV.secret} is not`)
  return {accessKeyId, secretAccessKey, ...(sessionToken === '' ? {} : {sessionToken})}
}

/** The answer to a HEAD has no text, and the SDK calls that unknown. */
function describe({name, message}: Error, status: number): string {
  if (/^Unknown/.test(name)) return `HTTP ${status}`
  return `${name} (HTTP ${status})${message === '' || message === name ? '' : `: ${message}`}`
}

function kindOf(error: Error, status: number | undefined): ErrorKind {
  if (error.name === 'NoSuchBucket' || error.name === 'CredentialsProviderError') return 'USAGE'
  if (error.name === 'TimeoutError') return 'TIMEOUT'
  // Without an answer: a connection that could not be made, or that broke.
  if (status === undefined || (status >= 200 && status < 300)) return 'UNREACHABLE'
  if (status === 404) return 'NOT_FOUND'
  if (status === 401 || status === 403) return 'USAGE'
  if (status === 507 || /StorageFull|QuotaExceeded/.test(error.name)) return 'NO_SPACE'
  return status >= 500 || status === 429 ? 'UNREACHABLE' : 'IO'
}

function abortedBy(signal: AbortSignal | undefined): {abortSignal?: AbortSignal} {
  return signal === undefined ? {} : {abortSignal: signal}
}

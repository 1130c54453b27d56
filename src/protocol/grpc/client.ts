// Calls to one peer. The methods come from the generated definition; nothing is written by hand for each of them.
import {isIP} from 'node:net'
import {Client, connectivityState, credentials, type ChannelOptions, type Metadata, type ServiceError} from '@grpc/grpc-js'
import {formatHostPort, type Address} from '../../lib/address.js'
import {LonghornError} from '../../lib/errors.js'
import {identityMetadata, type Identity} from './identity.js'
import {
  decodeMessage,
  encodeMessage,
  methodPath,
  newMessage,
  type MethodDefinition,
  type RequestOf,
  type ResponseOf,
  type ServiceDefinition,
  type StreamingMethod,
  type UnaryMethod,
} from './service-definition.js'
import {fromStatus, type RpcError} from './status.js'

export interface ConnectOptions {
  /** What is at the other end, for error texts: `replica`, `engine`, `sync agent`. */
  readonly peer: string
  /** Without a host this is the local machine. */
  readonly address: Address
  /** Whom the calls mean; a peer that knows itself by another name refuses them. */
  readonly identity?: Identity
  /** For calls that do not say; a minute by default. */
  readonly timeoutMs?: number
}

export interface CallOptions {
  /** How long to wait for the answer, connecting included. Infinity is allowed. */
  readonly timeoutMs?: number | undefined
  /** The call then fails with the signal's reason, and the peer is told. */
  readonly signal?: AbortSignal | undefined
}

/**
 * One promise-returning function for each method. Fields that are left out of a request have protobuf's defaults.
 * They reject with RpcError, or with the reason of the signal or of `destroy`. A response is of the right shape; its values
 * are the caller's to check (fields.ts).
 */
export type Calls<S extends ServiceDefinition> = {
  readonly [M in UnaryMethod<S>]: (request?: Partial<RequestOf<S, M>>, options?: CallOptions) => Promise<ResponseOf<S, M>>
} & {
  /** A stream goes on until the peer ends it, the loop over it is left, or its signal is aborted. */
  readonly [M in StreamingMethod<S>]: (request?: Partial<RequestOf<S, M>>, options?: CallOptions) => AsyncGenerator<ResponseOf<S, M>>
}

export type RpcClient<S extends ServiceDefinition> = Connection & Calls<S>

/** One snapshot's layer takes some 300 bytes of a Replica, so this is for more than a hundred thousand of them. */
const MAX_RESPONSE_BYTES = 64 << 20

const DEFAULT_TIMEOUT_MS = 60_000

const OPTIONS: ChannelOptions = {
  'grpc.max_receive_message_length': MAX_RESPONSE_BYTES,
  // A call while there is no connection fails at once with the reason of the last attempt; these say how old that may be.
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 1000,
  // Upstream's servers end a connection that pings more often than every five minutes.
  'grpc.keepalive_time_ms': 330_000,
  'grpc.keepalive_timeout_ms': 40_000,
  // Closing a client closes its connection; a shared one would stay for half an hour.
  'grpc.use_local_subchannel_pool': 1,
  // Proxy settings in the environment are for backup stores; looking up settings of a service in DNS costs a query.
  'grpc.enable_http_proxy': 0,
  'grpc.service_config_disable_resolution': 1,
  // What the peer has not seen is still sent again.
  'grpc.enable_retries': 0,
  'grpc.enable_channelz': 0,
}

/** Connects with the first call, and again whenever it must. */
export function connect<S extends ServiceDefinition>(definition: S, options: ConnectOptions): RpcClient<S> {
  const connection = new Connection(options)
  const calls = Object.entries(definition.methods).map(([name, method]) => {
    const path = methodPath(definition, method)
    const call = method.responseStream
      ? (request?: object, how?: CallOptions) => connection.stream(path, method, request, how)
      : (request?: object, how?: CallOptions) => connection.call(path, method, request, how)
    return [name, call] as const
  })
  return Object.assign(connection, Object.fromEntries(calls)) as unknown as RpcClient<S>
}

/** The connection behind a client. `connect` gives its calls their names and types. */
export class Connection implements AsyncDisposable {
  /** `replica 10.0.0.3:9502`, as errors begin. */
  readonly peer: string
  readonly #client: Client
  readonly #metadata: Metadata
  readonly #timeoutMs: number
  /** Calls that wait for their answer, with what ends each of them early. */
  readonly #calls = new Map<Promise<unknown>, End>()
  readonly #streams = new Set<End>()
  /** Why there are no more calls. */
  #ended: Error | undefined

  constructor({peer, address, identity = {}, timeoutMs = DEFAULT_TIMEOUT_MS}: ConnectOptions) {
    this.peer = `${peer} ${address.kind === 'unix' ? address.path : formatHostPort(address)}`
    this.#client = new Client(target(address), credentials.createInsecure(), OPTIONS)
    this.#metadata = identityMetadata(identity)
    this.#timeoutMs = timeoutMs
  }

  /** Takes no new calls, ends streams, waits for the calls in progress and disconnects. Safe twice. */
  async close(): Promise<void> {
    this.#ended ??= this.#closed()
    for (const end of this.#streams) end(this.#ended)
    await Promise.allSettled(this.#calls.keys())
    this.#client.close()
  }

  /** Fails all that is in progress, and all that comes, with `reason`. Safe twice; the first reason stays. */
  destroy(reason: Error = this.#closed()): void {
    this.#ended ??= reason
    for (const end of [...this.#streams, ...this.#calls.values()]) end(this.#ended)
    this.#client.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async call<Request, Response>(
    path: string,
    method: MethodDefinition<Request, Response>,
    request?: Partial<Request>,
    {timeoutMs = this.#timeoutMs, signal}: CallOptions = {},
  ): Promise<Response> {
    this.#check(signal)
    const argument = encodeMessage(method.requestType, newMessage(method.requestType, request))
    let end: End = nothing
    const answer = new Promise<Buffer>((resolve, reject) => {
      const deadline = Date.now() + timeoutMs
      const call = this.#client.makeUnaryRequest(path, same, same, argument, this.#metadata.clone(), {deadline}, (error, bytes = EMPTY) => {
        if (error === null) resolve(bytes)
        else reject(this.#failure(error, method.name, timeoutMs))
      })
      end = reason => {
        reject(reason)
        call.cancel()
      }
    })
    const abort = (): void => end(signal?.reason as Error)
    signal?.addEventListener('abort', abort)
    this.#calls.set(answer, end)
    try {
      return decodeMessage(method.responseType, await answer, `${this.peer}: response of ${method.name}`)
    } finally {
      this.#calls.delete(answer)
      signal?.removeEventListener('abort', abort)
    }
  }

  async *stream<Request, Response>(
    path: string,
    method: MethodDefinition<Request, Response>,
    request?: Partial<Request>,
    {timeoutMs = Infinity, signal}: CallOptions = {},
  ): AsyncGenerator<Response> {
    this.#check(signal)
    const argument = encodeMessage(method.requestType, newMessage(method.requestType, request))
    const deadline = Date.now() + timeoutMs
    const call = this.#client.makeServerStreamRequest(path, same, same, argument, this.#metadata.clone(), {deadline})
    // A cancelled stream says so here, also after its reader has left.
    call.on('error', nothing)
    let reason: Error | undefined
    const end: End = why => {
      reason ??= why
      call.cancel()
    }
    const abort = (): void => end(signal?.reason as Error)
    signal?.addEventListener('abort', abort)
    this.#streams.add(end)
    try {
      for await (const bytes of call as AsyncIterable<Buffer>) {
        yield decodeMessage(method.responseType, bytes, `${this.peer}: response of ${method.name}`)
      }
    } catch (error) {
      throw reason ?? (error instanceof LonghornError ? error : this.#failure(error as ServiceError, method.name, timeoutMs))
    } finally {
      this.#streams.delete(end)
      signal?.removeEventListener('abort', abort)
      call.cancel()
    }
  }

  #check(signal: AbortSignal | undefined): void {
    if (this.#ended !== undefined) throw this.#ended
    signal?.throwIfAborted()
  }

  #failure(error: ServiceError, method: string, timeoutMs: number): RpcError {
    const connected = this.#client.getChannel().getConnectivityState(false) === connectivityState.READY
    return fromStatus(error, {peer: this.peer, method, timeoutMs, connected})
  }

  #closed(): LonghornError {
    return new LonghornError('UNREACHABLE', `${this.peer}: connection was closed`)
  }
}

type End = (reason: Error) => void

const EMPTY = Buffer.alloc(0)

/** With its scheme, so that grpc-js does not take an IP address for a name to look up. */
function target(address: Address): string {
  if (address.kind === 'unix') return `unix:${address.path}`
  const {host, port} = address
  const scheme = {0: 'dns', 4: 'ipv4', 6: 'ipv6'}[isIP(host)] ?? 'dns'
  return host === '' ? `ipv4:127.0.0.1:${port}` : `${scheme}:${formatHostPort({host, port})}`
}

function same(bytes: Buffer): Buffer {
  return bytes
}

function nothing(): void {
  // Nothing to do.
}

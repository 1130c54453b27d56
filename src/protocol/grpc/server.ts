// One gRPC server on one address.
//
// The listening socket is ours and hands its connections to grpc-js: so an address in use is an error code and not a text, the
// number of connections has a limit, and closing can end every one of them.
import {once} from 'node:events'
import {createServer, type Socket} from 'node:net'
import {
  logVerbosity,
  Server,
  ServerCredentials,
  setLogVerbosity,
  type sendUnaryData,
  type ServerOptions,
  type ServerUnaryCall,
  type ServerWritableStream,
} from '@grpc/grpc-js'
import type {Address} from '../../lib/address.js'
import {LonghornError} from '../../lib/errors.js'
import type {Log} from '../../lib/log.js'
import {checkIdentity, type Identity} from './identity.js'
import {listen} from './listen.js'
import {decodeMessage, encodeMessage, methodPath} from './service-definition.js'
import type {ServedMethod, Service} from './service.js'
import {StatusError, toStatus} from './status.js'

export interface RpcServerOptions {
  /** Port 0 asks for a free one. Without a host this listens on every interface, as upstream's processes do for `:PORT`. */
  readonly listen: Address
  readonly services: readonly Service[]
  /** Who this process is; calls that mean another are refused. `role` is for the text, in upstream's words. */
  readonly identity?: Identity & {readonly role: 'controller' | 'replica'}
  readonly log: Log
  /** How often each peer is asked whether it is still there; without an answer in twice that time it is taken for gone. */
  readonly pingIntervalMs?: number
}

/** Messages stay bytes in grpc-js, so that what is wrong with one is reported like any other error. */
type UnaryCall = ServerUnaryCall<Buffer, Buffer>
type StreamCall = ServerWritableStream<Buffer, Buffer>

/** The largest request: a list of the files of thousands of snapshots stays far below. */
const MAX_REQUEST_BYTES = 4 << 20

/** Peers of one process are few; beyond this somebody is leaking connections. */
const MAX_CONNECTIONS = 1024

/**
 * Pings find peers that vanished without a word. They are also all that ends a connection whose peer broke the rules of HTTP/2:
 * Node 20 then says goodbye and stops reading, and does not notice when the peer hangs up. Waiting longer than this for an answer
 * matters when it is this process that was held up, by a slow disk: it would end calls that are well.
 */
const PING_INTERVAL_MS = 20_000

const OPTIONS: ServerOptions = {
  'grpc.max_receive_message_length': MAX_REQUEST_BYTES,
  'grpc.max_concurrent_streams': 128,
  // MiB that one connection may make this process hold.
  'grpc-node.max_session_memory': 32,
  // A connection without calls is given up; clients come back by themselves.
  'grpc.max_connection_idle_ms': 300_000,
  'grpc.enable_channelz': 0,
}

export class RpcServer implements AsyncDisposable {
  readonly #grpc: Server
  readonly #listener = createServer({noDelay: true})
  readonly #sockets = new Set<Socket>()
  readonly #options: RpcServerOptions
  /** Of the calls that are being answered. Streams have no end of their own and are ended by `close`. */
  readonly #unary = new Set<AbortController>()
  readonly #streams = new Set<AbortController>()
  #address: Address
  #closed: Promise<void> | undefined

  /** Throws CONFLICT when the address is in use. */
  static async start(options: RpcServerOptions): Promise<RpcServer> {
    // grpc-js writes lines of its own to stderr about what peers send; GRPC_VERBOSITY brings them back.
    if (process.env.GRPC_VERBOSITY === undefined) setLogVerbosity(logVerbosity.NONE)
    const server = new RpcServer(options)
    await server.#listen()
    return server
  }

  private constructor(options: RpcServerOptions) {
    const {pingIntervalMs = PING_INTERVAL_MS} = options
    this.#grpc = new Server({...OPTIONS, 'grpc.keepalive_time_ms': pingIntervalMs, 'grpc.keepalive_timeout_ms': 2 * pingIntervalMs})
    this.#options = options
    this.#address = options.listen
    for (const service of options.services) this.#register(service)
  }

  /** Where it listens, with the real port. */
  get address(): Address {
    return this.#address
  }

  /** Open connections, for metrics. */
  get connections(): number {
    return this.#sockets.size
  }

  /** Takes no new calls, lets those in progress finish for `graceMs`, then ends them. Safe twice; the first one decides. */
  close(graceMs = 5000): Promise<void> {
    this.#closed ??= this.#close(graceMs)
    return this.#closed
  }

  /** Ends everything now. Handlers in progress see their signal aborted. */
  destroy(): Promise<void> {
    const closed = this.close(0)
    this.#end()
    return closed
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #listen(): Promise<void> {
    const {log} = this.#options
    const connections = this.#grpc.createConnectionInjector(ServerCredentials.createInsecure())
    this.#listener.maxConnections = MAX_CONNECTIONS
    this.#listener.on('connection', socket => {
      this.#sockets.add(socket)
      socket.once('close', () => this.#sockets.delete(socket))
      connections.injectConnection(socket)
    })
    this.#listener.once('drop', () => log.warn({connections: MAX_CONNECTIONS}, 'too many connections, refusing new ones'))
    this.#address = await listen(this.#listener, this.#options.listen)
    this.#listener.on('error', error => log.error({err: error}, 'cannot accept connections'))
  }

  async #close(graceMs: number): Promise<void> {
    const closed = new Promise<void>(resolve => {
      this.#listener.close(() => resolve())
    })
    for (const call of this.#streams) call.abort(closing())
    this.#grpc.tryShutdown(() => undefined)
    const timer = setTimeout(() => this.#end(), graceMs)
    await closed
    clearTimeout(timer)
  }

  #end(): void {
    for (const call of [...this.#streams, ...this.#unary]) call.abort(closing())
    // Not grpc.forceShutdown(): without channelz it does not know its connections and ends none of them.
    for (const socket of this.#sockets) socket.destroy()
  }

  #register({definition, methods}: Service): void {
    for (const method of methods) {
      const path = methodPath(definition, method.definition)
      const added = method.definition.responseStream
        ? this.#grpc.register(path, (call: StreamCall) => void this.#stream(path, method, call), same, same, 'serverStream')
        : this.#grpc.register(
            path,
            (call: UnaryCall, answer: sendUnaryData<Buffer>) => void this.#answer(path, method, call, answer),
            same,
            same,
            'unary',
          )
      if (!added) throw new Error(`${path} is registered twice`)
    }
  }

  async #answer(path: string, method: ServedMethod, call: UnaryCall, answer: sendUnaryData<Buffer>): Promise<void> {
    const controller = this.#begin(this.#unary, call)
    try {
      const response = await this.#handle(path, method, call, controller.signal)
      answer(null, encodeMessage(method.definition.responseType, response))
    } catch (error) {
      this.#report(path, call, error)
      answer(toStatus(error))
    } finally {
      this.#unary.delete(controller)
    }
  }

  async #stream(path: string, method: ServedMethod, call: StreamCall): Promise<void> {
    const controller = this.#begin(this.#streams, call)
    const {signal} = controller
    try {
      for await (const response of this.#handle(path, method, call, signal) as AsyncIterable<unknown>) {
        if (!call.write(encodeMessage(method.definition.responseType, response))) await once(call, 'drain', {signal})
      }
      call.end()
    } catch (error) {
      const failure: unknown = signal.aborted ? signal.reason : error
      this.#report(path, call, failure)
      call.emit('error', toStatus(failure))
    } finally {
      this.#streams.delete(controller)
    }
  }

  /** What the handler returns or throws, or what was wrong with the call before it came to the handler. */
  #handle(path: string, {definition, handle}: ServedMethod, call: UnaryCall | StreamCall, signal: AbortSignal): unknown {
    const {identity} = this.#options
    if (identity !== undefined) checkIdentity(identity, identity.role, call.metadata)
    if (handle === undefined) throw new LonghornError('UNSUPPORTED', `${path} is not provided by this process`)
    const request = decodeMessage(definition.requestType, call.request, `request of ${path}`)
    return handle(request, {method: definition.name, peer: call.getPeer(), signal})
  }

  #begin(calls: Set<AbortController>, call: UnaryCall | StreamCall): AbortController {
    const controller = new AbortController()
    calls.add(controller)
    // This comes after every call. Once a handler has answered, what it left running in the background is not stopped.
    call.once('cancelled', () => {
      if (calls.has(controller)) controller.abort(new LonghornError('INTERRUPTED', 'the caller has gone'))
    })
    return controller
  }

  /** An error with a meaning is for the caller to report; anything else is a bug in this process. */
  #report(path: string, call: UnaryCall | StreamCall, error: unknown): void {
    const about = {method: path, peer: call.getPeer(), err: error}
    if (error instanceof LonghornError || error instanceof StatusError) this.#options.log.debug(about, 'call failed')
    else this.#options.log.error(about, 'call failed unexpectedly')
  }
}

function same(bytes: Buffer): Buffer {
  return bytes
}

function closing(): LonghornError {
  return new LonghornError('UNREACHABLE', 'server is closing')
}

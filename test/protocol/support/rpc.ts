import type {Test} from 'tap'
import type {TcpAddress} from '../../../src/lib/address.js'
import {openLog} from '../../../src/lib/log.js'
import {connect, type ConnectOptions, type RpcClient} from '../../../src/protocol/grpc/client.js'
import {RpcServer, type RpcServerOptions} from '../../../src/protocol/grpc/server.js'
import type {ServiceDefinition} from '../../../src/protocol/grpc/service-definition.js'

export const LOOPBACK: TcpAddress = {kind: 'tcp', host: '127.0.0.1', port: 0}

/** A server on a free port that ends with the test, and the lines of its log from `warn` on. */
export async function serve(t: Test, options: Partial<RpcServerOptions>): Promise<{server: RpcServer; address: TcpAddress; lines: string[]}> {
  const lines: string[] = []
  const log = openLog({write: line => void lines.push(line)}, {LONGHORN_LOG_LEVEL: 'warn'})
  const server = await RpcServer.start({listen: LOOPBACK, services: [], log, ...options})
  t.teardown(() => server.destroy())
  return {server, address: server.address as TcpAddress, lines}
}

/** A client that ends with the test. */
export function dial<S extends ServiceDefinition>(t: Test, definition: S, options: Partial<ConnectOptions>): RpcClient<S> {
  const client = connect(definition, {peer: 'replica', address: LOOPBACK, timeoutMs: 60_000, ...options})
  t.teardown(() => client.destroy())
  return client
}

/** A promise with its handles outside. */
export function deferred<T = void>(): {promise: Promise<T>; resolve(value: T): void; reject(error: Error): void} {
  let resolve!: (value: T) => void
  let reject!: (error: Error) => void
  const promise = new Promise<T>((yes, no) => {
    resolve = yes
    reject = no
  })
  return {promise, resolve, reject}
}

import {spawnSync} from 'node:child_process'
import {once} from 'node:events'
import {existsSync} from 'node:fs'
import {createServer as createHttpServer} from 'node:http'
import {connect as connectSocket, createServer, type AddressInfo, type Server, type Socket} from 'node:net'
import {join} from 'node:path'
import {Metadata, status as Status, type ServiceError} from '@grpc/grpc-js'
import t, {type Test} from 'tap'
import type {Address} from '../../src/lib/address.js'
import {LonghornError, type ErrorKind} from '../../src/lib/errors.js'
import {expansionError, expansionFailureOf} from '../../src/protocol/grpc/expansion.js'
import {newMessage} from '../../src/protocol/grpc/service-definition.js'
import {provide, type CallContext} from '../../src/protocol/grpc/service.js'
import {fromStatus, StatusError, toStatus, type RpcError} from '../../src/protocol/grpc/status.js'
import {ControllerServiceDefinition, ReplicaMode, Volume} from '../../src/protocol/proto/generated/controller.js'
import {DiskInfo, Replica, ReplicaServiceDefinition, type ReplicaOpenRequest} from '../../src/protocol/proto/generated/replica.js'
import {SyncAgentServiceDefinition, type FilesSyncRequest} from '../../src/protocol/proto/generated/sync-agent.js'
import {deferred, dial, LOOPBACK, serve} from './support/rpc.js'

const closedReplica = {replica: newMessage(Replica, {state: 'closed', size: '4096'})}

async function listening(t: Test, server: Server): Promise<Address> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  return {...LOOPBACK, port: (server.address() as AddressInfo).port}
}

t.test('three services on one port, called by name', async t => {
  const opened: ReplicaOpenRequest[] = []
  const synced: FilesSyncRequest[] = []
  class FakeReplica {
    readonly #state = 'open'
    async replicaOpen(request: ReplicaOpenRequest): Promise<{replica: Replica}> {
      opened.push(request)
      return {replica: newMessage(Replica, {state: this.#state, features: ['flush'], lastModifyTime: 2n ** 60n})}
    }
  }
  const {address} = await serve(t, {
    services: [
      provide(ReplicaServiceDefinition, new FakeReplica()),
      provide(ControllerServiceDefinition, {
        volumeGet: async () => newMessage(Volume, {name: 'v', size: 1n << 40n}),
        replicaUpdate: async request => ({...request, mode: ReplicaMode.ERR}),
      }),
      provide(SyncAgentServiceDefinition, {
        filesSync: async request => {
          synced.push(request)
          return {}
        },
      }),
    ],
  })

  const replica = dial(t, ReplicaServiceDefinition, {address})
  const {replica: found} = await replica.replicaOpen({features: ['flush', 'fua'], session: 's1'})
  t.same(found, newMessage(Replica, {state: 'open', features: ['flush'], lastModifyTime: 2n ** 60n}))
  t.same(opened, [{isUpgrade: false, expectedBackendSize: 0n, features: ['flush', 'fua'], session: 's1'}])

  const engine = dial(t, ControllerServiceDefinition, {address})
  t.match(await engine.volumeGet(), {name: 'v', size: 1n << 40n})
  const answer = await engine.replicaUpdate({address: {address: 'tcp://r:1', instanceName: 'i'}, mode: ReplicaMode.RW})
  t.same(answer, {address: {address: 'tcp://r:1', instanceName: 'i'}, mode: ReplicaMode.ERR})

  const agent = dial(t, SyncAgentServiceDefinition, {address, peer: 'sync agent'})
  const files = [{fromFileName: 'a', toFileName: 'b', actualSize: 1n << 50n}]
  t.same(await agent.filesSync({syncFileInfoList: files, fromAddressMap: new Map([['tcp://r:1', true]])}), {})
  t.match(synced, [{syncFileInfoList: files, fromAddressMap: new Map([['tcp://r:1', true]]), localSync: undefined}])
})

t.test('a large answer arrives, a request that is too large does not', async t => {
  const disks = new Map(
    Array.from({length: 20_000}, (_, i) => [`volume-snap-${i}.img`, newMessage(DiskInfo, {created: '2026-11-20T09:39:34Z', size: '4096'})]),
  )
  const {address} = await serve(t, {
    services: [provide(ReplicaServiceDefinition, {replicaGet: async () => ({replica: newMessage(Replica, {disks})})})],
  })
  const client = dial(t, ReplicaServiceDefinition, {address})
  t.equal((await client.replicaGet()).replica?.disks.size, 20_000)
  await t.rejects(client.diskRemove({name: 'x'.repeat(5 << 20)}), {code: 'LH_PROTOCOL', status: Status.RESOURCE_EXHAUSTED})
  t.equal((await client.replicaGet()).replica?.disks.size, 20_000, 'the connection lives on')
})

t.test('methods that are not provided say so', async t => {
  const {address} = await serve(t, {services: [provide(ReplicaServiceDefinition, {})]})
  const replica = dial(t, ReplicaServiceDefinition, {address})
  await t.rejects(replica.replicaCreate({size: '1'}), {
    code: 'LH_UNSUPPORTED',
    status: Status.UNIMPLEMENTED,
    answered: true,
    message: `replica 127.0.0.1:${address.port}: /ptypes.ReplicaService/ReplicaCreate is not provided by this process`,
  })
  const engine = dial(t, ControllerServiceDefinition, {address, peer: 'engine'})
  await t.rejects(engine.volumeGet(), {code: 'LH_UNSUPPORTED', answered: true}, 'nor is a whole service')
})

t.test('identity', async t => {
  const {address} = await serve(t, {
    identity: {role: 'replica', volumeName: 'vol-a', instanceName: 'vol-a-r-1'},
    services: [provide(ReplicaServiceDefinition, {replicaGet: async () => closedReplica})],
  })
  const call = (volumeName?: string, instanceName?: string): Promise<unknown> =>
    dial(t, ReplicaServiceDefinition, {address, identity: {volumeName, instanceName}}).replicaGet()

  await t.resolves(call(), 'a call that means nobody in particular')
  await t.resolves(call('vol-a'))
  await t.resolves(call('vol-a', 'vol-a-r-1'))
  await t.rejects(call('vol-b'), {
    code: 'LH_CONFLICT',
    status: Status.FAILED_PRECONDITION,
    text: 'incorrect volume name vol-b; check replica address',
  })
  await t.rejects(call('vol-a', 'vol-a-r-2'), {message: /: incorrect instance name vol-a-r-2; check replica address$/})

  const nameless = await serve(t, {
    identity: {role: 'replica', volumeName: ''},
    services: [provide(ReplicaServiceDefinition, {replicaGet: async () => closedReplica})],
  })
  const other = dial(t, ReplicaServiceDefinition, {address: nameless.address, identity: {volumeName: 'vol-b'}})
  await t.resolves(other.replicaGet(), 'a server that does not know its name')
})

t.test('errors of a handler arrive as what they were', async t => {
  let failure: unknown
  const {address, lines} = await serve(t, {
    services: [
      provide(ReplicaServiceDefinition, {
        replicaGet: async () => {
          throw failure
        },
      }),
    ],
  })
  const client = dial(t, ReplicaServiceDefinition, {address})
  const statuses: Record<ErrorKind, Status> = {
    USAGE: Status.INVALID_ARGUMENT,
    NOT_FOUND: Status.NOT_FOUND,
    CONFLICT: Status.FAILED_PRECONDITION,
    UNREACHABLE: Status.UNAVAILABLE,
    TIMEOUT: Status.DEADLINE_EXCEEDED,
    PROTOCOL: Status.INVALID_ARGUMENT,
    CORRUPT: Status.DATA_LOSS,
    NO_SPACE: Status.RESOURCE_EXHAUSTED,
    BUSY: Status.ABORTED,
    UNSUPPORTED: Status.UNIMPLEMENTED,
    IO: Status.UNKNOWN,
    NO_DATA: Status.UNKNOWN,
    INTERRUPTED: Status.CANCELLED,
  }
  const peer = `replica 127.0.0.1:${address.port}`
  for (const [kind, status] of Object.entries(statuses) as [ErrorKind, Status][]) {
    failure = new LonghornError(kind, 'it went wrong: 100 % "é" \n')
    const {retryable} = failure as LonghornError
    await t.rejects(client.replicaGet(), {code: `LH_${kind}`, status, answered: true, retryable}, kind)
  }
  failure = new LonghornError('NOT_FOUND', 'no snapshot 100 % "é"\nhere')
  await t.rejects(client.replicaGet(), {message: `${peer}: no snapshot 100 % "é"\nhere`, text: 'no snapshot 100 % "é"\nhere'})
  t.same(lines, [], 'errors with a meaning are the caller\'s to report')

  failure = new LonghornError('NO_SPACE', 'write of /d/volume-head-001.img failed')
  const expected = {message: /: write of \/d\/volume-head-001\.img failed: no space left on device$/}
  await t.rejects(client.replicaGet(), expected, 'words that upstream looks for are added')
  failure = new LonghornError('NO_SPACE', 'ENOSPC: no space left on device, write')
  await t.rejects(client.replicaGet(), {message: /: ENOSPC: no space left on device, write$/}, 'once')
  failure = new LonghornError('NO_DATA', 'both replicas are faulty')
  await t.rejects(client.replicaGet(), {message: /: both replicas are faulty: no available backend due to replica error$/})

  failure = new StatusError(Status.ALREADY_EXISTS, 'exactly this')
  await t.rejects(client.replicaGet(), {code: 'LH_CONFLICT', status: Status.ALREADY_EXISTS, text: 'exactly this'})
  failure = new LonghornError('IO', `half a pair ${'\ud800'} ${'x'.repeat(100_000)}`)
  await t.rejects(client.replicaGet(), {message: /: half a pair \ufffd x{3000,4096}…$/}, 'what would break a header is mended')
  t.same(lines, [])

  failure = new TypeError('cannot read properties of undefined')
  await t.rejects(client.replicaGet(), {code: 'LH_IO', status: Status.UNKNOWN, text: 'cannot read properties of undefined'})
  t.match(lines.join(''), /"err":\{"type":"TypeError".*grpc-calls/, 'a bug is logged with its stack')
  failure = 'not even an error'
  await t.rejects(client.replicaGet(), {code: 'LH_IO', text: 'not even an error'})
})

t.test('an answer that cannot be written is an error, and logged', async t => {
  const {address, lines} = await serve(t, {
    services: [provide(ReplicaServiceDefinition, {replicaGet: async () => ({replica: newMessage(Replica, {revisionCounter: 2n ** 70n})})})],
  })
  await t.rejects(dial(t, ReplicaServiceDefinition, {address}).replicaGet(), {code: 'LH_IO', status: Status.UNKNOWN})
  t.equal(lines.length, 1)
})

t.test('errors of upstream peers', async t => {
  const from = (code: Status, details: string, connected = true): RpcError => {
    const error: ServiceError = Object.assign(new Error(details), {code, details, metadata: new Metadata()})
    return fromStatus(error, {peer: 'replica r:1', method: 'ReplicaGet', timeoutMs: 1500, connected})
  }
  const unknown: Record<string, ErrorKind> = {
    'failed to open: disk is on fire': 'IO',
    'write error: no space left on device': 'NO_SPACE',
    'snapshot volume-snap-s1.img is already existing': 'CONFLICT',
    'no available backend due to replica error': 'NO_DATA',
    'replica is already purging snapshots': 'BUSY',
    'restore is already in progress': 'BUSY',
    'cannot request hashing snapshot s1': 'BUSY',
  }
  for (const [text, kind] of Object.entries(unknown)) {
    t.match(from(Status.UNKNOWN, text), {code: `LH_${kind}`, answered: true, text, message: `replica r:1: ${text}`}, text)
  }
  t.match(from(Status.NOT_FOUND, 'x'), {code: 'LH_NOT_FOUND', answered: true})
  t.match(from(Status.INTERNAL, 'no space left on device'), {code: 'LH_IO'}, 'words count in UNKNOWN only')
  t.match(from(Status.UNAVAILABLE, 'x'), {code: 'LH_UNREACHABLE', answered: false})
  t.match(from(Status.CANCELLED, 'x'), {code: 'LH_UNREACHABLE', answered: false})
  t.match(from(Status.DEADLINE_EXCEEDED, 'x'), {code: 'LH_TIMEOUT', answered: false, message: 'replica r:1: ReplicaGet took longer than 1.5 s'})
  t.match(from(Status.DEADLINE_EXCEEDED, 'x', false), {code: 'LH_UNREACHABLE', message: 'replica r:1: no connection within 1.5 s'})
  t.match(from(Status.RESOURCE_EXHAUSTED, 'message larger than max'), {code: 'LH_PROTOCOL'})
  t.match(from(99 as Status, 'x'), {code: 'LH_IO'}, 'a code that does not exist')

  const forged = new Metadata()
  forged.set('longhorn-error', 'constructor')
  const error: ServiceError = Object.assign(new Error('x'), {code: Status.NOT_FOUND, details: 'x', metadata: forged})
  t.match(fromStatus(error, {peer: 'p', method: 'm', timeoutMs: 1, connected: true}), {code: 'LH_NOT_FOUND'}, 'a kind that does not exist')
  t.same(toStatus(new LonghornError('BUSY', 'b')).metadata.get('longhorn-error'), ['BUSY'])
})

t.test('a failed expansion tells what became of it', async t => {
  const failure = {code: 'FunctionFailedRollbackSucceeded', message: 'no "space"', rollbackMessage: ''} as const
  const {address} = await serve(t, {
    services: [
      provide(ReplicaServiceDefinition, {
        replicaExpand: async ({size}) => {
          throw size === 1n ? expansionError(failure) : new StatusError(Status.INTERNAL, '{"code":"Other"}')
        },
      }),
    ],
  })
  const client = dial(t, ReplicaServiceDefinition, {address})
  const error: unknown = await client.replicaExpand({size: 1n}).catch((e: unknown) => e)
  t.match(error, {status: Status.INTERNAL, text: '{"code":"FunctionFailedRollbackSucceeded","message":"no \\"space\\"","rollbackMessage":""}'})
  t.same(expansionFailureOf(error), failure)
  t.equal(expansionFailureOf(await client.replicaExpand({size: 2n}).catch((e: unknown) => e)), undefined)
  t.equal(expansionFailureOf(await client.replicaGet().catch((e: unknown) => e)), undefined)
  t.equal(expansionFailureOf(new Error('x')), undefined)
})

t.test('nobody is listening', async t => {
  const server = createServer()
  const address = await listening(t, server)
  server.close()
  await once(server, 'close')
  const port = address.kind === 'tcp' ? address.port : 0

  const client = dial(t, ReplicaServiceDefinition, {address})
  const start = performance.now()
  await t.rejects(client.replicaGet(), {
    code: 'LH_UNREACHABLE',
    answered: false,
    message: `replica 127.0.0.1:${port}: connection refused`,
    cause: {code: Status.UNAVAILABLE},
  })
  t.ok(performance.now() - start < 30_000, 'and the caller learns it at once')
  await t.rejects(client.replicaGet(), {message: `replica 127.0.0.1:${port}: connection refused`}, 'also while it waits to try again')

  const unix = dial(t, ReplicaServiceDefinition, {address: {kind: 'unix', path: join(t.testdir(), 'no.sock')}})
  await t.rejects(unix.replicaGet(), {code: 'LH_UNREACHABLE', message: /no\.sock: no such file or directory$/})
  const name = dial(t, ReplicaServiceDefinition, {address: {kind: 'tcp', host: 'no-such-host.invalid', port: 1}})
  await t.rejects(name.replicaGet(), {code: 'LH_UNREACHABLE', answered: false})
})

t.test('a server that comes back is found again', async t => {
  const services = [provide(ReplicaServiceDefinition, {replicaGet: async () => closedReplica})]
  const first = await serve(t, {services})
  const client = dial(t, ReplicaServiceDefinition, {address: first.address})
  await client.replicaGet()
  await first.server.close()
  await t.rejects(client.replicaGet(), {code: 'LH_UNREACHABLE'})
  await serve(t, {services, listen: first.address})
  const deadline = performance.now() + 60_000
  for (;;) {
    try {
      t.match(await client.replicaGet(), closedReplica)
      break
    } catch (error) {
      t.match(error, {code: 'LH_UNREACHABLE', answered: false})
      if (performance.now() > deadline) throw error
      await new Promise(resolve => setTimeout(resolve, 20))
    }
  }
})

t.test('peers that are no gRPC server', async t => {
  const http = createHttpServer((_, response) => response.end('hello'))
  const silent = createServer()
  const sockets: Socket[] = []
  silent.on('connection', socket => sockets.push(socket.on('error', () => undefined)))
  const rude = createServer(socket => socket.on('error', () => undefined).end('\xff'.repeat(100)))

  const call = async (server: Server, timeoutMs: number): Promise<unknown> =>
    dial(t, ReplicaServiceDefinition, {address: await listening(t, server)}).replicaGet({}, {timeoutMs})
  await t.rejects(call(http, 1000), {code: 'LH_UNREACHABLE'})
  await t.rejects(call(rude, 1000), {code: 'LH_UNREACHABLE'})
  await t.rejects(call(silent, 300), {code: 'LH_UNREACHABLE', message: /no connection within 0\.3 s$/})
  for (const socket of sockets) socket.destroy()
})

t.test('deadlines and signals', async t => {
  const contexts: CallContext[] = []
  const started = new Map<string, () => void>()
  const {address} = await serve(t, {
    services: [
      provide(ReplicaServiceDefinition, {
        replicaGet: async () => closedReplica,
        // Waits until nobody wants the answer any more.
        diskRemove: async ({name}, context) => {
          contexts.push(context)
          started.get(name)?.()
          await once(context.signal, 'abort')
          return closedReplica
        },
      }),
    ],
  })
  const client = dial(t, ReplicaServiceDefinition, {address})
  await client.replicaGet()

  await t.rejects(client.diskRemove({name: 'late'}, {timeoutMs: 50}), {
    code: 'LH_TIMEOUT',
    answered: false,
    retryable: true,
    message: `replica 127.0.0.1:${address.port}: DiskRemove took longer than 0.05 s`,
  })
  t.match(contexts[0], {method: 'DiskRemove', peer: /^127\.0\.0\.1:\d+$/})
  if (contexts[0]?.signal.aborted === false) await once(contexts[0].signal, 'abort')
  t.pass('the handler is told')

  const {promise, resolve} = deferred()
  started.set('abort', resolve)
  const controller = new AbortController()
  const call = client.diskRemove({name: 'abort'}, {signal: controller.signal, timeoutMs: Infinity})
  await promise
  const reason = new LonghornError('INTERRUPTED', 'interrupted by SIGTERM')
  controller.abort(reason)
  t.equal(await call.catch((error: unknown) => error), reason, 'the reason of the signal, as it is')
  if (contexts[1]?.signal.aborted === false) await once(contexts[1].signal, 'abort')
  t.match(contexts[1]?.signal.reason, {code: 'LH_INTERRUPTED'}, 'and the handler is told')
  t.equal(await client.replicaGet({}, {signal: controller.signal}).catch((error: unknown) => error), reason, 'aborted before')
  await t.resolves(client.replicaGet(), 'the connection lives on')
})

t.test('a signal is not kept after its call', async t => {
  const {address} = await serve(t, {services: [provide(ReplicaServiceDefinition, {replicaGet: async () => closedReplica})]})
  const client = dial(t, ReplicaServiceDefinition, {address})
  const {signal} = new AbortController()
  let listeners = 0
  const add = signal.addEventListener.bind(signal)
  const remove = signal.removeEventListener.bind(signal)
  signal.addEventListener = (...args: Parameters<typeof add>) => {
    listeners += 1
    add(...args)
  }
  signal.removeEventListener = (...args: Parameters<typeof remove>) => {
    listeners -= 1
    remove(...args)
  }
  for (let i = 0; i < 20; i += 1) await client.replicaGet({}, {signal})
  await t.rejects(client.replicaCreate({}, {signal}))
  t.equal(listeners, 0)
})

t.test('work left running after the answer is not stopped by the end of the call', async t => {
  let seen: AbortSignal | undefined
  const {address} = await serve(t, {
    services: [
      provide(ReplicaServiceDefinition, {
        replicaGet: async (_, {signal}) => {
          seen = signal
          return closedReplica
        },
      }),
    ],
  })
  const client = dial(t, ReplicaServiceDefinition, {address})
  await client.replicaGet()
  await client.close()
  t.equal(seen?.aborted, false)
})

t.test('the server goes in the middle of a call', async t => {
  const entered = deferred()
  let aborted: unknown
  const {server, address} = await serve(t, {
    services: [
      provide(ReplicaServiceDefinition, {
        replicaGet: async (_, {signal}) => {
          entered.resolve()
          await once(signal, 'abort')
          aborted = signal.reason
          return closedReplica
        },
      }),
    ],
  })
  const client = dial(t, ReplicaServiceDefinition, {address})
  const call = client.replicaGet().catch((error: unknown) => error)
  await entered.promise
  await server.destroy()
  t.match(await call, {code: 'LH_UNREACHABLE', answered: false})
  t.match(aborted, {code: 'LH_UNREACHABLE', message: 'server is closing'})
})

t.test('the connection breaks in the middle of a call', async t => {
  const entered = deferred()
  const {address} = await serve(t, {
    services: [
      provide(ReplicaServiceDefinition, {
        replicaGet: async (_, {signal}) => {
          entered.resolve()
          await once(signal, 'abort')
          return closedReplica
        },
      }),
    ],
  })
  const links: Socket[] = []
  const relay = createServer(near => {
    const far = connectSocket(address.port, address.host)
    links.push(near, far)
    near.on('error', () => undefined).pipe(far)
    far.on('error', () => undefined).pipe(near)
  })
  const client = dial(t, ReplicaServiceDefinition, {address: await listening(t, relay)})
  const call = client.replicaGet().catch((error: unknown) => error)
  await entered.promise
  for (const link of links) link.resetAndDestroy()
  t.match(await call, {code: 'LH_UNREACHABLE', answered: false})
})

t.test('closing a server', async t => {
  await t.test('lets the calls in progress finish and takes no new ones', async t => {
    const entered = deferred()
    const release = deferred()
    const {server, address} = await serve(t, {
      services: [
        provide(ReplicaServiceDefinition, {
          replicaGet: async () => {
            entered.resolve()
            await release.promise
            return closedReplica
          },
        }),
      ],
    })
    const client = dial(t, ReplicaServiceDefinition, {address})
    const call = client.replicaGet()
    await entered.promise
    const closed = server.close()
    t.equal(server.close(), closed, 'twice is once')
    await t.rejects(dial(t, ReplicaServiceDefinition, {address}).replicaGet(), {code: 'LH_UNREACHABLE'})
    release.resolve()
    t.match(await call, closedReplica)
    await closed
    await server.destroy()
  })

  await t.test('ends the calls that take too long', async t => {
    const entered = deferred()
    const {server, address} = await serve(t, {
      services: [
        provide(ReplicaServiceDefinition, {
          replicaGet: async () => {
            entered.resolve()
            return new Promise(() => undefined)
          },
        }),
      ],
    })
    const call = dial(t, ReplicaServiceDefinition, {address}).replicaGet().catch((error: unknown) => error)
    await entered.promise
    await server.close(30)
    t.match(await call, {code: 'LH_UNREACHABLE'})
  })

  await t.test('ends connections that never said a word', async t => {
    const {server, address} = await serve(t, {})
    const socket = connectSocket(address.port, address.host).on('error', () => undefined)
    await once(socket, 'connect')
    await server.close(30)
    socket.destroy()
  })

  await t.test('without any connection', async t => {
    const {server} = await serve(t, {})
    await server.close()
    await server.close()
  })
})

t.test('closing a client', async t => {
  const release = deferred()
  const {address} = await serve(t, {
    services: [
      provide(ReplicaServiceDefinition, {
        replicaGet: async () => {
          await release.promise
          return closedReplica
        },
      }),
    ],
  })
  const closing = dial(t, ReplicaServiceDefinition, {address})
  const destroyed = dial(t, ReplicaServiceDefinition, {address})
  const finishes = closing.replicaGet()
  const fails = destroyed.replicaGet().catch((error: unknown) => error)
  const closed = closing.close()
  await t.rejects(closing.replicaGet(), {code: 'LH_UNREACHABLE', message: /connection was closed$/}, 'no new calls')

  const reason = new LonghornError('CONFLICT', 'a newer engine took over')
  destroyed.destroy(reason)
  destroyed.destroy(new Error('a second reason'))
  t.equal(await fails, reason)
  t.equal(await destroyed.replicaGet().catch((error: unknown) => error), reason, 'the first reason stays')

  release.resolve()
  t.match(await finishes, closedReplica)
  await closed
  await closing.close()
  closing.destroy()
})

t.test('addresses', async t => {
  const services = [provide(ReplicaServiceDefinition, {replicaGet: async () => closedReplica})]
  const reaches = async (listen: Address, via = listen): Promise<void> => {
    const {address} = await serve(t, {listen, services})
    const to = via.kind === 'tcp' ? {...via, port: address.port} : via
    t.match(await dial(t, ReplicaServiceDefinition, {address: to}).replicaGet(), closedReplica)
  }
  await t.test('IPv4', () => reaches(LOOPBACK))
  await t.test('IPv6', () => reaches({...LOOPBACK, host: '::1'}))
  await t.test('a name', () => reaches({...LOOPBACK, host: 'localhost'}))
  await t.test('every interface', () => reaches({...LOOPBACK, host: ''}))
  await t.test('every interface, through one of them', () => reaches({...LOOPBACK, host: ''}, LOOPBACK))
  const path = join(t.testdir(), 'rpc.sock')
  await t.test('a socket', () => reaches({kind: 'unix', path}))
})

t.test('an address in use', async t => {
  const {address} = await serve(t, {})
  await t.rejects(serve(t, {listen: address}), {code: 'LH_CONFLICT', message: `port ${address.port} is in use`})
  await t.rejects(serve(t, {listen: {...LOOPBACK, host: '192.0.2.1'}}), {code: 'LH_IO', message: /^cannot listen on tcp:\/\/192\.0\.2\.1:0: /})

  const path = join(t.testdir(), 'rpc.sock')
  const {server} = await serve(t, {listen: {kind: 'unix', path}})
  await t.rejects(serve(t, {listen: {kind: 'unix', path}}), {code: 'LH_CONFLICT', message: `socket ${path} is in use`})
  await server.close()
  await t.resolves(serve(t, {listen: {kind: 'unix', path}}), 'free again')

  const stale = join(t.testdir(), 'stale.sock')
  const killed = `require('net').createServer().listen(${JSON.stringify(stale)}, () => process.kill(process.pid, 'SIGKILL'))`
  spawnSync(process.execPath, ['-e', killed])
  t.ok(existsSync(stale), 'a process that was killed leaves its socket')
  await t.resolves(serve(t, {listen: {kind: 'unix', path: stale}}), 'which is taken over')
})

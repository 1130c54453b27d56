// What is sent to a gRPC port by those who do not speak gRPC, or speak it badly: the server must survive, answer others
// meanwhile, and forget them.
import {randomBytes} from 'node:crypto'
import {once} from 'node:events'
import {connect as connectHttp2, type ClientHttp2Session, type OutgoingHttpHeaders} from 'node:http2'
import {connect, type Socket} from 'node:net'
import {setFlagsFromString} from 'node:v8'
import {runInNewContext} from 'node:vm'
import {gzipSync} from 'node:zlib'
import t, {type Test} from 'tap'
import type {TcpAddress} from '../../src/lib/address.js'
import {isKind} from '../../src/lib/errors.js'
import type {RpcServer} from '../../src/protocol/grpc/server.js'
import {newMessage} from '../../src/protocol/grpc/service-definition.js'
import {provide} from '../../src/protocol/grpc/service.js'
import {Replica, ReplicaServiceDefinition} from '../../src/protocol/proto/generated/replica.js'
import {dial, serve} from './support/rpc.js'

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
const SETTINGS = frame(4, 0, 0)

function frame(type: number, flags: number, stream: number, payload: Buffer = Buffer.alloc(0), length = payload.length): Buffer {
  const header = Buffer.alloc(9)
  header.writeUIntBE(length, 0, 3)
  header.writeUInt8(type, 3)
  header.writeUInt8(flags, 4)
  header.writeUInt32BE(stream, 5)
  return Buffer.concat([header, payload])
}

function flood(one: Buffer): Buffer {
  return Buffer.alloc(one.length * 5000, one)
}

async function replica(t: Test, pingIntervalMs = 200): Promise<{server: RpcServer; address: TcpAddress; lines: string[]; healthy(): Promise<void>}> {
  const {server, address, lines} = await serve(t, {
    pingIntervalMs,
    services: [
      provide(ReplicaServiceDefinition, {
        replicaGet: async () => ({replica: newMessage(Replica, {state: 'open'})}),
        replicaCreate: async ({size}) => ({replica: newMessage(Replica, {size})}),
      }),
    ],
  })
  const client = dial(t, ReplicaServiceDefinition, {address})
  // On a machine that is busy with other things the short ping interval may cost this client its connection as well: it comes back.
  const healthy = async (): Promise<void> => {
    const deadline = performance.now() + 60_000
    for (;;) {
      try {
        t.match(await client.replicaGet(), {replica: {state: 'open'}}, 'still answers')
        return
      } catch (error) {
        if (!isKind(error, 'UNREACHABLE') || performance.now() > deadline) throw error
        await new Promise(resolve => setTimeout(resolve, 100))
      }
    }
  }
  await healthy()
  return {server, address, lines, healthy}
}

/** Waits until only `count` connections are left. */
async function settled(server: RpcServer, count: number): Promise<void> {
  const deadline = performance.now() + 60_000
  while (server.connections > count && performance.now() < deadline) await new Promise(resolve => setImmediate(resolve))
}

/** Sends bytes and hangs up; `healthy` is called when they have had their effect. */
async function send({host, port}: TcpAddress, bytes: Buffer, healthy: () => Promise<void>): Promise<void> {
  const socket = connect(port, host).on('error', () => undefined)
  await once(socket, 'connect')
  socket.resume().end(bytes)
  await healthy()
  socket.destroy()
}

t.test('bytes that are not HTTP/2', async t => {
  const {server, address, lines, healthy} = await replica(t)
  const inputs: Record<string, Buffer> = {
    'HTTP/1.1': Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n'),
    'an upgrade to HTTP/2': Buffer.from(
      'GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n',
    ),
    'a TLS greeting': Buffer.from('16030100c8010000c40303', 'hex'),
    'a data frame of ours': Buffer.concat([Buffer.from([0x01, 0x1b]), Buffer.alloc(24)]),
    zeros: Buffer.alloc(65_536),
    ones: Buffer.alloc(65_536, 0xff),
  }
  for (const [what, bytes] of Object.entries(inputs)) {
    t.comment(what)
    await send(address, bytes, healthy)
  }
  for (let i = 0; i < 50; i += 1) await send(address, randomBytes(1 + i * 37), healthy)
  await settled(server, 1)
  t.equal(server.connections, 1, 'nothing is left of them')
  t.same(lines, [])
})

t.test('HTTP/2 that is wrong', async t => {
  const {server, address, lines, healthy} = await replica(t)
  const open = Buffer.concat([PREFACE, SETTINGS])
  const inputs: Record<string, Buffer> = {
    'half a preface': PREFACE.subarray(0, 10),
    'a preface and nothing': PREFACE,
    'a frame that is cut': Buffer.concat([open, frame(0, 0, 1, Buffer.alloc(10), 100)]),
    'a frame of 16 MiB': Buffer.concat([open, frame(0, 0, 1, Buffer.alloc(100), 0xffffff)]),
    'settings of 16 MiB': Buffer.concat([PREFACE, frame(4, 0, 0, Buffer.alloc(100), 0xffffff)]),
    'data of a stream that does not exist': Buffer.concat([open, frame(0, 0, 77, Buffer.alloc(10))]),
    'headers that are no headers': Buffer.concat([open, frame(1, 4, 1, Buffer.alloc(100, 0xff))]),
    'headers without an end': Buffer.concat([open, frame(1, 0, 1, Buffer.from([0x82])), flood(frame(9, 0, 1, Buffer.alloc(16, 0x82)))]),
    'a flood of pings': Buffer.concat([open, flood(frame(6, 0, 0, Buffer.alloc(8)))]),
    'a flood of settings': Buffer.concat([open, flood(SETTINGS)]),
    'a flood of empty data': Buffer.concat([open, flood(frame(0, 0, 1))]),
    'a window of nothing': Buffer.concat([open, frame(8, 0, 0, Buffer.alloc(4))]),
    'a frame of a type that does not exist': Buffer.concat([open, frame(99, 255, 3, Buffer.alloc(100))]),
    'an even stream': Buffer.concat([open, frame(1, 5, 2, Buffer.from([0x82]))]),
  }
  for (const [what, bytes] of Object.entries(inputs)) {
    t.comment(what)
    await send(address, bytes, healthy)
  }
  for (let i = 0; i < 50; i += 1) await send(address, Buffer.concat([open, randomBytes(200)]), healthy)
  await settled(server, 1)
  t.equal(server.connections, 1, 'nothing is left of them')
  t.same(lines, [])
})

interface Reply {
  readonly http: number | undefined
  readonly grpc: string | undefined
  readonly message: string | undefined
}

async function post(session: ClientHttp2Session, headers: OutgoingHttpHeaders, body: Buffer | undefined, end = true): Promise<Reply> {
  const usual = {':method': 'POST', ':path': '/ptypes.ReplicaService/ReplicaCreate', 'content-type': 'application/grpc', te: 'trailers'}
  const stream = session.request({...usual, ...headers})
  const seen: Record<string, unknown> = {}
  for (const event of ['response', 'trailers']) stream.on(event, (found: object) => void Object.assign(seen, found))
  stream.on('error', () => undefined)
  if (body !== undefined) stream.write(body)
  if (end) stream.end()
  stream.resume()
  await once(stream, end ? 'close' : 'response')
  stream.close()
  const text = (value: unknown): string | undefined => (typeof value === 'string' ? decodeURIComponent(value) : undefined)
  return {http: seen[':status'] as number | undefined, grpc: text(seen['grpc-status']), message: text(seen['grpc-message'])}
}

function message(payload: Buffer, length = payload.length, compressed = 0): Buffer {
  const prefix = Buffer.alloc(5)
  prefix.writeUInt8(compressed, 0)
  prefix.writeUInt32BE(length, 1)
  return Buffer.concat([prefix, payload])
}

t.test('gRPC that is wrong', async t => {
  const {server, address, lines, healthy} = await replica(t, 60_000)
  const session = connectHttp2(`http://${address.host}:${address.port}`)
  const good = message(Buffer.from([0x0a, 2, 0x34, 0x32]))
  const is = async (what: string, headers: OutgoingHttpHeaders, body: Buffer | undefined, expected: object, end = true): Promise<void> => {
    t.match(await post(session, headers, body, end), expected, what)
  }
  await is('a good one', {}, good, {http: 200, grpc: '0'})
  await is('a request that is no message', {}, message(Buffer.from([0x0a, 200, 1])), {
    grpc: '3',
    message: /^request of \/ptypes\.ReplicaService\/ReplicaCreate is malformed/,
  })
  await is('text that is not UTF-8', {}, message(Buffer.from([0x0a, 2, 0xff, 0xfe])), {grpc: '0'})
  await is('no message', {}, undefined, {grpc: /^(12|13)$/})
  await is('a cut message', {}, message(Buffer.alloc(3), 9), {grpc: /^(12|13)$/})
  await is('a length of 4 GiB', {}, message(Buffer.alloc(3), 0xffffffff), {grpc: '8'}, false)
  await is('a length just over the limit', {}, message(Buffer.alloc(3), (4 << 20) + 1), {grpc: '8'}, false)
  await is('two messages', {}, Buffer.concat([good, good]), {grpc: /^(12|13)$/})
  await is('ten thousand messages', {}, Buffer.concat(Array.from({length: 10_000}, () => message(Buffer.alloc(0)))), {grpc: /^(12|13)$/})
  await is('one that becomes a hundred times larger', {'grpc-encoding': 'gzip'}, message(gzipSync(Buffer.alloc(8 << 20)), undefined, 1), {grpc: '8'})
  await is('one that is not what it says', {'grpc-encoding': 'gzip'}, message(Buffer.from('abc'), 3, 1), {grpc: '13'})
  await is('an encoding that does not exist', {'grpc-encoding': 'x'}, message(Buffer.from('abc'), 3, 1), {grpc: '12'})
  await is('a deadline that is no time', {'grpc-timeout': 'soon'}, good, {grpc: '13'})
  await is('a deadline in centuries', {'grpc-timeout': '99999999H'}, good, {http: 200})
  await is('a method that does not exist', {':path': '/ptypes.ReplicaService/Nothing'}, good, {grpc: '12'})
  await is('a path that is no method', {':path': '/'}, good, {grpc: '12'})
  await is('a path with strange letters', {':path': '/\x80\xff%00'}, good, {grpc: '12'})
  await is('a name of every object', {':path': '/constructor'}, good, {grpc: '12'})
  await is('another content', {'content-type': 'application/json'}, Buffer.from('{}'), {http: 415})
  await is('no POST', {':method': 'GET'}, undefined, {grpc: /^(12|13)$/})
  await is('metadata that is not ASCII', {'volume-name': '\x80'}, good, {grpc: '0'})
  await is('metadata that is not base64', {'x-bin': '?'}, good, {grpc: '0'})
  session.destroy()
  await healthy()
  await settled(server, 1)
  t.same(lines, [], 'nobody can fill the log')
})

t.test('streams that are opened and cancelled at once', async t => {
  const {address, healthy} = await replica(t)
  for (let round = 0; round < 5; round += 1) {
    const session = connectHttp2(`http://${address.host}:${address.port}`).on('error', () => undefined)
    for (let i = 0; i < 400 && !session.destroyed; i += 1) {
      const stream = session.request({':method': 'POST', ':path': '/ptypes.ReplicaService/ReplicaGet', 'content-type': 'application/grpc'})
      stream.on('error', () => undefined)
      stream.write(message(Buffer.alloc(0)))
      stream.close(8)
    }
    await healthy()
    session.destroy()
  }
})

t.test('connections that come and go leave nothing behind', async t => {
  const {server, address, healthy} = await replica(t)
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const heap = async (): Promise<number> => {
    await settled(server, 1)
    await new Promise(resolve => setTimeout(resolve, 50))
    collect()
    return process.memoryUsage().heapUsed
  }
  const round = async (): Promise<void> => {
    const sockets: Socket[] = []
    for (let i = 0; i < 50; i += 1) {
      const socket = connect(address.port, address.host).on('error', () => undefined)
      sockets.push(socket)
      await once(socket, 'connect')
      if (i % 3 === 0) socket.write(Buffer.concat([PREFACE, SETTINGS]))
      if (i % 3 === 1) socket.write(randomBytes(100))
    }
    for (const [i, socket] of sockets.entries()) {
      if (i % 2 === 0) socket.destroy()
      else socket.resetAndDestroy()
    }
  }
  for (let i = 0; i < 6; i += 1) await round()
  const before = await heap()
  for (let i = 0; i < 20; i += 1) await round()
  const after = await heap()
  t.ok(after - before < 4 << 20, `1000 connections later the heap has grown by ${after - before} bytes`)
  t.equal(server.connections, 1)
  await healthy()
})

t.test('too many connections', async t => {
  const {server, address, lines, healthy} = await replica(t, 60_000)
  const sockets: Socket[] = []
  for (let i = 0; i < 1100; i += 1) {
    const socket = connect(address.port, address.host).on('error', () => undefined)
    sockets.push(socket)
    await once(socket, 'connect')
  }
  await healthy()
  t.ok(server.connections <= 1024, 'no more than the limit are held')
  t.equal(lines.length, 1, 'which is logged once')
  for (const socket of sockets) socket.destroy()
  await settled(server, 1)
  t.match(await dial(t, ReplicaServiceDefinition, {address}).replicaGet(), {replica: {state: 'open'}}, 'and new ones are welcome again')
})

import {spawn} from 'node:child_process'
import {once} from 'node:events'
import t from 'tap'
import {Health} from '../../src/protocol/grpc/health.js'
import {HealthCheckResponse_ServingStatus as ServingStatus, HealthDefinition} from '../../src/protocol/proto/generated/health.js'
import {dial, serve} from './support/rpc.js'

t.test('check', async t => {
  const health = new Health()
  const {address} = await serve(t, {services: [health.service], identity: {role: 'replica', volumeName: 'v'}})
  const client = dial(t, HealthDefinition, {address})
  t.same(await client.check(), {status: ServingStatus.NOT_SERVING}, 'until it is told to serve')
  health.set('SERVING')
  t.same(await client.check(), {status: ServingStatus.SERVING})
  health.set('NOT_SERVING')
  t.same(await client.check(), {status: ServingStatus.NOT_SERVING})

  await t.rejects(client.check({service: 'ptypes.ReplicaService'}), {code: 'LH_NOT_FOUND'})
  health.set('SERVING', 'ptypes.ReplicaService')
  t.same(await client.check({service: 'ptypes.ReplicaService'}), {status: ServingStatus.SERVING})
})

t.test('watch', async t => {
  const health = new Health()
  const {server, address} = await serve(t, {services: [health.service]})
  const client = dial(t, HealthDefinition, {address})

  await t.test('tells the status now, then each change', async t => {
    const seen: number[] = []
    for await (const {status} of client.watch()) {
      seen.push(status)
      if (seen.length === 1) {
        health.set('NOT_SERVING')
        health.set('SERVING')
      }
      if (seen.length === 2) health.set('NOT_SERVING')
      if (seen.length === 3) break
    }
    t.same(seen, [ServingStatus.NOT_SERVING, ServingStatus.SERVING, ServingStatus.NOT_SERVING])
  })

  await t.test('a service that is not known may come', async t => {
    const seen: number[] = []
    for await (const {status} of client.watch({service: 'late'})) {
      seen.push(status)
      if (seen.length === 2) break
      health.set('SERVING', 'late')
    }
    t.same(seen, [ServingStatus.SERVICE_UNKNOWN, ServingStatus.SERVING])
  })

  await t.test('ends with its signal', async t => {
    const controller = new AbortController()
    const stream = client.watch({}, {signal: controller.signal})
    await stream.next()
    const reason = new Error('enough')
    controller.abort(reason)
    t.equal(await stream.next().catch((error: unknown) => error), reason)
    await t.rejects(client.watch({}, {signal: controller.signal}).next(), reason)
  })

  await t.test('ends with its client', async t => {
    const other = dial(t, HealthDefinition, {address})
    const stream = other.watch()
    await stream.next()
    const next = stream.next().catch((error: unknown) => error)
    await other.close()
    t.match(await next, {code: 'LH_UNREACHABLE', message: /connection was closed$/})
  })

  await t.test('ends with its deadline', async t => {
    const stream = client.watch({}, {timeoutMs: 1000})
    await stream.next()
    await t.rejects(stream.next(), {code: 'LH_TIMEOUT', message: /Watch took longer than 1 s$/})
  })

  await t.test('does not keep a server from closing', async t => {
    const stream = client.watch()
    await stream.next()
    const next = stream.next().catch((error: unknown) => error)
    const start = performance.now()
    await server.close(60_000)
    t.ok(performance.now() - start < 30_000)
    t.match(await next, {code: 'LH_UNREACHABLE', text: 'server is closing'})
  })
})

t.test('many watchers', async t => {
  const health = new Health()
  const {server, address} = await serve(t, {services: [health.service]})
  const streams = Array.from({length: 20}, () => dial(t, HealthDefinition, {address}).watch())
  await Promise.all(streams.map(stream => stream.next()))
  health.set('SERVING')
  const seen = await Promise.all(streams.map(stream => stream.next()))
  t.same(seen, Array(20).fill({done: false, value: {status: ServingStatus.SERVING}}))
  await server.destroy()
})

const PROBE = 'grpc_health_probe'

async function probe(...args: string[]): Promise<{code: number | null; output: string}> {
  const child = spawn(PROBE, args)
  let output = ''
  child.stdout.on('data', (text: Buffer) => (output += text.toString()))
  child.stderr.on('data', (text: Buffer) => (output += text.toString()))
  const [code] = (await once(child, 'close')) as [number | null]
  return {code, output}
}

const withoutProbe = await probe('-version').then(
  () => false as const,
  () => `${PROBE} is not installed`,
)

t.test('grpc_health_probe, as the instance manager runs it', {skip: withoutProbe}, async t => {
  const health = new Health()
  const {server, address} = await serve(t, {services: [health.service]})
  const ask = (): Promise<{code: number | null; output: string}> => probe('-addr', `127.0.0.1:${address.port}`)
  health.set('SERVING')
  t.match(await ask(), {code: 0, output: /SERVING/})
  health.set('NOT_SERVING')
  t.match(await ask(), {code: 4, output: /NOT_SERVING/})
  await server.close()
  t.match(await ask(), {code: 2})
})

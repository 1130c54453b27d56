import t from 'tap'
import {Metrics} from '../../src/engine/metrics.js'
import {OP} from '../../src/protocol/block-device.js'
import {Request} from '../support/request.js'

const NOTHING = {readBytes: 0, writeBytes: 0, reads: 0, writes: 0, readLatencyNs: 0, writeLatencyNs: 0}

function request(op: typeof OP.READ | typeof OP.WRITE, length: number, startedAt: number, continued = false): Request {
  const io = new Request(op, 0, length)
  io.startedAt = startedAt
  io.continued = continued
  return io
}

t.test('the last full second, and no other', async t => {
  const metrics = new Metrics(5000)
  metrics.count(request(OP.READ, 4096, 5000), 5002)
  metrics.count(request(OP.READ, 8192, 5100), 5104)
  metrics.count(request(OP.WRITE, 512, 5200.5), 5201)
  t.same(metrics.rates(5999), NOTHING, 'it is not over yet')
  t.same(metrics.rates(6000), {readBytes: 12288, writeBytes: 512, reads: 2, writes: 1, readLatencyNs: 3_000_000, writeLatencyNs: 500_000})
  metrics.count(request(OP.WRITE, 1024, 6500), 6501)
  t.match(metrics.rates(6999), {reads: 2, writes: 1}, 'still that one')
  t.match(metrics.rates(7001), {reads: 0, writes: 1, writeBytes: 1024})
  t.same(metrics.rates(8500), NOTHING, 'nothing has happened since')
})

t.test('after a pause the last second was empty', async t => {
  const metrics = new Metrics(0)
  metrics.count(request(OP.READ, 4096, 0), 1)
  metrics.count(request(OP.READ, 4096, 9000), 9001)
  t.same(metrics.rates(9002), NOTHING)
  t.match(metrics.rates(10_000), {reads: 1})
})

t.test('a request that was cut counts once', async t => {
  const metrics = new Metrics(0)
  metrics.count(request(OP.WRITE, 131_072, 0), 2)
  metrics.count(request(OP.WRITE, 131_072, 0, true), 4)
  t.same(metrics.rates(1000), {...NOTHING, writes: 1, writeBytes: 262_144, writeLatencyNs: 3_000_000})
})

import t from 'tap'
import {CODE} from './support/fake-device-server.js'
import {Initiator, INITIATOR, TARGET} from './support/initiator.js'
import {RawClient} from './support/raw.js'
import {eventually, serve} from './support/served.js'
import {IMMEDIATE, NONE, OP, rw10} from './support/wire.js'

const fast = {checkEveryMs: 5}

t.test('a login that takes too long', async t => {
  const {port, reasons} = await serve(t, {...fast, timeouts: {loginMs: 1500}})
  const silent = await RawClient.connect(port)
  t.equal((await silent.rest()).length, 0)
  const half = await Initiator.connect(port)
  await half.loginStep({transit: false, text: {InitiatorName: INITIATOR, TargetName: TARGET}})
  await half.end()
  t.same(reasons(), ['no login within 1500 ms', 'no login within 1500 ms'])
  const quick = await Initiator.open(port)
  await new Promise(resolve => setTimeout(resolve, 2000))
  await quick.ping()
  quick.kill()
})

t.test('an initiator that is silent is asked, and given up when it does not answer', async t => {
  const {port, reasons, entries} = await serve(t, {...fast, timeouts: {pingAfterMs: 30, pingMs: 2000}})
  const initiator = await Initiator.open(port)
  for (let count = 0; count < 3; count++) {
    const ping = await initiator.next()
    t.same([ping.opcode, ping.itt, ping.statSN], [OP.NOP_IN, NONE, 2], 'a StatSN that is not used up')
    t.not(ping.at20, NONE)
    initiator.send({opcode: OP.NOP_OUT | IMMEDIATE, itt: NONE, at20: ping.at20, at24: 1})
  }
  t.same(reasons(), [])
  t.equal((await initiator.next()).opcode, OP.NOP_IN)
  await initiator.end()
  t.same(reasons(), ['did not answer a ping within 2000 ms'])
  t.match(entries.at(-1), {peer: /^iqn.2000-01.org.example:one at 127.0.0.1:\d+$/}, 'the log says who')
})

t.test('an initiator that talks is not asked', async t => {
  const {port} = await serve(t, {...fast, timeouts: {pingAfterMs: 2000, pingMs: 2000}})
  const initiator = await Initiator.open(port)
  for (let count = 0; count < 200; count++) {
    await new Promise(resolve => setTimeout(resolve, 15))
    await initiator.ping()
  }
  t.pass('no answer was something else')
  initiator.kill()
})

t.test('an initiator that takes nothing', async t => {
  const {port, device, reasons, server} = await serve(t, {...fast, timeouts: {stallMs: 300}})
  const initiator = await Initiator.open(port, {segment: 262144})
  initiator.socket.pause()
  for (let count = 0; count < 64; count++) initiator.run(rw10(CODE.READ, 0, 2048), {read: 1024 * 1024}).catch(() => undefined)
  await eventually(() => server.connections === 0, 'given up')
  t.same(reasons(), ['has taken nothing of what was sent for 300 ms'])
  t.equal(device.running, 0)
  initiator.kill()
})

t.test('one that takes it slowly is left alone', async t => {
  const {port, reasons} = await serve(t, {...fast, timeouts: {stallMs: 3000}})
  const initiator = await Initiator.open(port, {segment: 262144})
  const reads = Array.from({length: 32}, () => initiator.run(rw10(CODE.READ, 0, 2048), {read: 1024 * 1024}))
  const timer = setInterval(() => (initiator.socket.isPaused() ? initiator.socket.resume() : initiator.socket.pause()), 20)
  t.ok((await Promise.all(reads)).every(result => result.status === 0))
  clearInterval(timer)
  t.same(reasons(), [])
  initiator.kill()
})

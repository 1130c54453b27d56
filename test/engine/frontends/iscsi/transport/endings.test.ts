import t from 'tap'
import {CODE} from './support/fake-device-server.js'
import {Initiator, INITIATOR} from './support/initiator.js'
import {RawClient} from './support/raw.js'
import {eventually, serve} from './support/served.js'
import {encode, IMMEDIATE, loginPdu, lunBytes, NONE, OP, rw10} from './support/wire.js'

const ready = Buffer.alloc(16)

t.test('close asks initiators to log out, and does not wait for those that do', async t => {
  const {port, server} = await serve(t)
  const initiator = await Initiator.open(port)
  const discovering = await Initiator.connect(port)
  await discovering.loginStep({text: {InitiatorName: INITIATOR, SessionType: 'Discovery'}})
  const started = performance.now()
  const closing = server.close(120_000)
  const message = await initiator.next()
  t.same([message.opcode, message.flags, message.itt, message.header.readUInt8(36), message.header.readUInt16BE(42)], [OP.ASYNC, 0x80, NONE, 1, 120])
  t.equal((await discovering.next()).opcode, OP.ASYNC)
  t.equal(await initiator.logout(), 0)
  t.equal(await discovering.logout(), 0)
  await closing
  t.ok(performance.now() - started < 60_000)
  t.same([server.connections, server.sessions], [0, 0])
})

t.test('close waits for commands, takes no new ones, and tells why', async t => {
  const {port, server, device, reasons} = await serve(t)
  device.mode = 'held'
  const initiator = await Initiator.open(port)
  const write = initiator.run(rw10(CODE.WRITE, 0, 8), {write: Buffer.alloc(4096, 3)})
  await eventually(() => device.held === 1, 'it runs')
  const closing = server.close(10_000)
  t.equal((await initiator.next()).opcode, OP.ASYNC)
  t.equal((await initiator.run(ready)).status, 8, 'BUSY')
  t.equal((await initiator.run(rw10(CODE.WRITE, 0, 8), {write: Buffer.alloc(4096, 4)})).status, 8)
  await initiator.ping()
  t.equal(device.held, 1)
  device.release()
  t.equal((await write).status, 0)
  t.equal(device.bytes[0], 3)
  await closing
  await initiator.end()
  t.same(reasons(), ['the target is shutting down'])
  await t.rejects(Initiator.connect(port), 'nobody listens')
})

t.test('close does not wait longer than it may', async t => {
  const {port, server, device} = await serve(t)
  device.mode = 'held'
  const initiator = await Initiator.open(port)
  const lost = t.rejects(initiator.run(ready))
  await eventually(() => device.held === 1, 'it runs')
  const idle = await RawClient.connect(port)
  await server.close(50)
  await lost
  t.same([server.connections, device.running], [0, 1])
  device.release()
  t.equal(device.running, 0, 'what ends later does no harm')
  idle.socket.destroy()
  await server.close()
})

t.test('an initiator that breaks off, wherever it is', async t => {
  const {port, server, device} = await serve(t)
  device.mode = 'held'
  const data = Buffer.alloc(300 * 512, 1)
  const pdus = [
    encode({opcode: OP.COMMAND, flags: 0xc1, lun: lunBytes(1), itt: 1, at20: 65536, at24: 1, cdb: rw10(CODE.READ, 0, 128)}),
    encode({opcode: OP.COMMAND, flags: 0x21, lun: lunBytes(1), itt: 2, at20: data.length, at24: 2, cdb: rw10(CODE.WRITE, 0, 300), data: data.subarray(0, 100_000)}),
    encode({opcode: OP.COMMAND, flags: 0x21, lun: lunBytes(1), itt: 3, at20: data.length, at24: 4, cdb: rw10(CODE.WRITE, 0, 300), data: data.subarray(0, 1000)}),
  ]
  const whole = Buffer.concat(pdus)
  for (let length = 0; length < whole.length; length += 6007) {
    const initiator = await Initiator.open(port, {firstBurst: 262144})
    initiator.socket.write(whole.subarray(0, length))
    await new Promise(resolve => setImmediate(resolve))
    if (length % 2 === 0) initiator.kill()
    else initiator.socket.resetAndDestroy()
    await eventually(() => server.connections === 0, 'gone')
    device.release()
    t.equal(device.running, 0)
  }
})

t.test('a connection that is ended while its data is under way', async t => {
  const {port, server, device} = await serve(t)
  device.mode = 'held'
  const initiator = await Initiator.open(port, {immediate: false, initialR2T: true})
  for (let itt = 1; itt <= 3; itt++) {
    initiator.send({opcode: OP.COMMAND | IMMEDIATE, flags: 0xa1, lun: lunBytes(1), itt, at20: 1024, cdb: rw10(itt === 3 ? CODE.LATE : CODE.WRITE, 0, 2)})
  }
  await initiator.next()
  await initiator.next()
  initiator.kill()
  await eventually(() => server.connections === 0, 'gone')
  t.same(device.events.filter(([what]) => what === 'end'), [['end', 0, true], ['end', 0, true]])
  device.release()
  // The third one asks for its data only now.
  await eventually(() => device.running === 0, 'nothing is left')
})

t.test('a refusal reaches the initiator although nobody reads on', async t => {
  const {port} = await serve(t)
  const client = await RawClient.connect(port)
  client.socket.write(Buffer.concat([encode(loginPdu({text: {InitiatorName: INITIATOR, TargetName: 'other'}})), Buffer.alloc(100_000)]))
  t.equal((await client.rest()).readUInt16BE(36), 0x0203)
  client.socket.destroy()
})

import {randomBytes} from 'node:crypto'
import t from 'tap'
import {CODE} from './support/fake-device-server.js'
import {Initiator} from './support/initiator.js'
import {eventually, serve} from './support/served.js'
import {IMMEDIATE, lunBytes, NONE, OP, rw10} from './support/wire.js'

const WINDOW = 128
const ready = Buffer.alloc(16)

t.test('the command window', async t => {
  const {port, device} = await serve(t)
  const initiator = await Initiator.open(port)
  t.equal(initiator.maxCmdSN - initiator.expCmdSN + 1, WINDOW)
  device.mode = 'held'
  const all = Array.from({length: 3 * WINDOW}, () => initiator.run(ready))
  await eventually(() => device.held === WINDOW, 'the window is used up')
  await initiator.ping()
  t.equal(initiator.maxCmdSN - initiator.expCmdSN + 1, 0, 'it is closed')
  device.release(10)
  await eventually(() => device.held === WINDOW, 'as many more')
  await initiator.ping()
  device.mode = 'now'
  device.release()
  t.ok((await Promise.all(all)).every(result => result.status === 0))
  t.equal(initiator.maxCmdSN - initiator.expCmdSN + 1, WINDOW, 'it is open again')
  t.equal(device.mostRunning, WINDOW)
  initiator.kill()
})

t.test('commands outside the window are ignored', async t => {
  const {port, device} = await serve(t)
  const initiator = await Initiator.open(port)
  for (const at24 of [0, 1 + WINDOW, 1 + 2 ** 31, 0xffffffff]) {
    initiator.send({opcode: OP.COMMAND, flags: 0xa1, lun: lunBytes(1), itt: 5, at20: 512, at24, cdb: rw10(CODE.WRITE, 0, 1), data: Buffer.alloc(512)})
    await initiator.ping()
  }
  t.equal(device.attributes.length, 0)
  t.same([initiator.expCmdSN, initiator.maxCmdSN], [1, WINDOW])
  initiator.send({opcode: OP.COMMAND, flags: 0x81, lun: lunBytes(1), itt: 5, at24: 1, cdb: ready})
  t.equal((await initiator.next()).byte3, 0)
  initiator.send({opcode: OP.COMMAND, flags: 0x81, lun: lunBytes(1), itt: 5, at24: 1, cdb: ready})
  await initiator.ping()
  t.equal(device.attributes.length, 1, 'and so is one that was there before')
  initiator.kill()
})

t.test('numbers that wrap around', async t => {
  const {port} = await serve(t)
  const initiator = await Initiator.connect(port)
  initiator.cmdSN = 0xfffffff0
  initiator.maxCmdSN = 0xfffffff0
  await initiator.login()
  for (let count = 0; count < 40; count++) t.equal((await initiator.run(ready)).status, 0)
  t.equal(initiator.expCmdSN, 0xfffffff0 + 40 - 2 ** 32)
  initiator.kill()
})

t.test('commands out of order wait for their turn', async t => {
  const {port, device} = await serve(t)
  for (const digests of [{}, {header: true, data: true}]) {
    const initiator = await Initiator.open(port, {digests})
    device.events.length = 0
    const data = randomBytes(2048)
    const order: number[] = []
    const write = (at24: number, itt: number): void =>
      initiator.send({opcode: OP.COMMAND, flags: 0x21, lun: lunBytes(1), itt, at20: 2048, at24, cdb: rw10(CODE.WRITE, 4 * at24, 4), data: data.subarray(0, 512)})
    const rest = (itt: number): void => initiator.send({opcode: OP.DATA_OUT, itt, at20: NONE, at40: 512, data: data.subarray(512)})
    write(3, 30)
    rest(30)
    write(3, 31)
    write(2, 20)
    initiator.send({opcode: OP.NOP_OUT, itt: 40, at20: NONE, at24: 4})
    await initiator.ping()
    rest(20)
    await initiator.ping()
    t.same([device.events.length, initiator.expCmdSN], [0, 1], 'nothing has happened yet')
    write(1, 10)
    rest(10)
    for (let count = 0; count < 4; count++) order.push((await initiator.next()).itt)
    t.same(order.toSorted(), [10, 20, 30, 40])
    for (const block of [4, 8, 12]) t.ok(device.bytes.subarray(block * 512, block * 512 + 2048).equals(data))
    t.same(device.events.filter(([what]) => what === 'end').length, 3)
    await initiator.ping()
    t.same([initiator.expCmdSN, initiator.maxCmdSN], [5, 4 + WINDOW])
    initiator.kill()
  }
})

t.test('an initiator that leaves out a command and sends too much behind it', async t => {
  const {port, reasons} = await serve(t)
  const initiator = await Initiator.open(port, {firstBurst: 65536})
  for (let at24 = 2; at24 < 100; at24++) {
    initiator.send({opcode: OP.COMMAND, flags: 0xa1, lun: lunBytes(1), itt: at24, at20: 65536, at24, cdb: rw10(CODE.WRITE, 0, 128), data: Buffer.alloc(65536)})
  }
  await initiator.end()
  t.same(reasons(), ['command 1 is missing, and too many came after it'])
})

t.test('immediate commands have a limit of their own', async t => {
  const {port, device} = await serve(t)
  const initiator = await Initiator.open(port)
  device.mode = 'held'
  for (let itt = 1; itt <= 33; itt++) initiator.send({opcode: OP.COMMAND | IMMEDIATE, flags: 0x81, lun: lunBytes(1), itt, at24: 1, cdb: ready})
  const reject = await initiator.next()
  t.same([reject.opcode, reject.byte2, reject.data.readUInt32BE(16)], [OP.REJECT, 6, 33])
  t.equal(device.held, 32)
  device.mode = 'now'
  device.release()
  for (let count = 0; count < 32; count++) t.equal((await initiator.next()).opcode, OP.RESPONSE)
  t.same([initiator.expCmdSN, initiator.maxCmdSN], [1, WINDOW], 'they leave the window as it is')
  initiator.kill()
})

t.test('a task tag that is in use', async t => {
  const {port, device} = await serve(t)
  const initiator = await Initiator.open(port)
  device.mode = 'held'
  initiator.send({opcode: OP.COMMAND, flags: 0x81, lun: lunBytes(1), itt: 7, at24: 1, cdb: ready})
  initiator.send({opcode: OP.COMMAND, flags: 0x81, lun: lunBytes(1), itt: 7, at24: 2, cdb: ready})
  t.same([(await initiator.next()).byte2, initiator.expCmdSN, initiator.maxCmdSN], [9, 3, 1 + WINDOW])
  initiator.send({opcode: OP.COMMAND, flags: 0x81, lun: lunBytes(1), itt: NONE, at24: 3, cdb: ready})
  t.equal((await initiator.next()).opcode, OP.REJECT)
  device.release()
  t.equal((await initiator.next()).itt, 7)
  initiator.kill()
})

t.test('reads wait until there is memory for them, and nothing else does', async t => {
  const {port, device} = await serve(t)
  device.mode = 'held'
  const initiator = await Initiator.open(port, {segment: 262144})
  const MIB = 1024 * 1024
  const reads = Array.from({length: 100}, () => initiator.run(rw10(CODE.READ, 0, 2048), {read: MIB}))
  await eventually(() => device.held >= 16, 'what fits')
  await initiator.ping()
  t.equal(device.held, 16)
  device.mode = 'later'
  device.release()
  t.ok((await Promise.all(reads)).every(result => result.data.length === MIB))
  t.ok(device.mostBytes <= 16 * MIB, `${device.mostBytes} bytes at a time`)
  device.mode = 'held'
  const huge = initiator.run(rw10(CODE.READ, 0, 1), {read: 0xfffffe00})
  await eventually(() => device.held === 1, 'one that is larger than all there is can be had alone')
  const small = initiator.run(rw10(CODE.READ, 0, 1), {read: 512})
  await initiator.ping()
  t.equal(device.held, 1)
  device.release()
  t.equal((await huge).last.at44, 0xfffffe00 - 512)
  await eventually(() => device.held === 1, 'the next one')
  device.release()
  t.equal((await small).data.length, 512)
  initiator.kill()
})

t.test('several sessions share the memory', async t => {
  const {port, device} = await serve(t)
  device.mode = 'held'
  const MIB = 1024 * 1024
  const initiators = await Promise.all(Array.from({length: 32}, (_, index) => Initiator.open(port, {name: `iqn.2000-01.org.example:${index}`})))
  for (const initiator of initiators) for (let count = 0; count < 20; count++) initiator.run(rw10(CODE.READ, 0, 2048), {read: MIB}).catch(() => undefined)
  for (const initiator of initiators) await initiator.ping()
  await eventually(() => device.held === 32 * 8, 'each has its share')
  for (const initiator of initiators) initiator.kill()
  device.mode = 'now'
  device.release()
  await eventually(() => device.running === 0, 'nothing is left')
})

t.test('an initiator that sends and does not take what it gets', async t => {
  const {port, device, server} = await serve(t)
  const slow = await Initiator.open(port, {segment: 262144})
  slow.socket.pause()
  const flood = Buffer.alloc(65536, 1)
  let taken = 0
  // Pings with data come back: without a limit all of this would pile up.
  for (let count = 0; count < 1500; count++) {
    slow.send({opcode: OP.NOP_OUT | IMMEDIATE, itt: count, at20: NONE, at24: 1, data: flood})
    if (slow.socket.writableLength === 0) taken++
    if (count % 50 === 0) await new Promise(resolve => setImmediate(resolve))
  }
  await new Promise(resolve => setTimeout(resolve, 200))
  t.ok(slow.socket.writableLength > 32 * 1024 * 1024, `most of it is not even received: ${slow.socket.writableLength}, ${taken}`)
  const other = await Initiator.open(port, {name: 'iqn.2000-01.org.example:two'})
  t.equal((await other.read(0, 8)).length, 4096, 'others are served')
  slow.socket.resume()
  for (let count = 0; count < 1500; count++) {
    const answer = await slow.next()
    if (answer.opcode !== OP.NOP_IN || answer.itt !== count || answer.data.length !== 65536) t.fail(`answer ${count}`)
  }
  t.equal((await slow.read(0, 8)).length, 4096, 'and it goes on when it wants to')
  slow.kill()
  other.kill()
  await eventually(() => server.connections === 0 && device.running === 0, 'gone')
})

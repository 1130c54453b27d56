import {randomBytes} from 'node:crypto'
import t from 'tap'
import {CODE} from './support/fake-device-server.js'
import {Initiator} from './support/initiator.js'
import {serve} from './support/served.js'
import {encode, IMMEDIATE, lunBytes, NONE, OP, rw10, type Pdu} from './support/wire.js'

const BOTH = {header: true, data: true}

/** Sends a PDU with one bit of it changed. */
function sendBroken(initiator: Initiator, pdu: Pdu, at: (length: number) => number): void {
  const bytes = encode(pdu, BOTH)
  bytes[at(bytes.length)]! ^= 1
  initiator.socket.write(bytes)
}

/** Somewhere in the data digest. */
const inDataDigest = (length: number): number => length - 2

t.test('every bit of a header counts', async t => {
  const {port, reasons} = await serve(t)
  for (const at of [0, 1, 4, 5, 6, 7, 8, 16, 24, 31, 32, 47, 48, 51]) {
    const initiator = await Initiator.open(port, {digests: BOTH})
    const bytes = encode({opcode: OP.COMMAND, flags: 0xc1, lun: lunBytes(1), itt: 5, at20: 512, at24: 1, cdb: rw10(CODE.READ, 0, 1)}, BOTH)
    bytes[at]! ^= 0x01
    // Whatever lengths it has now, enough follows.
    initiator.socket.write(Buffer.concat([bytes, Buffer.alloc(2048)]))
    await initiator.end()
  }
  t.same(new Set(reasons()), new Set(['a header digest does not match']))
})

t.test('data that is not what was sent', async t => {
  const {port, device} = await serve(t)
  const initiator = await Initiator.open(port, {digests: BOTH})
  const data = randomBytes(512)
  const expectReject = async (opcode: number): Promise<void> => {
    const reject = await initiator.next()
    t.same([reject.opcode, reject.byte2, reject.data[0]! & 0x3f, reject.data.length], [OP.REJECT, 2, opcode, 48])
  }
  const expectCrcError = async (): Promise<void> => {
    const response = await initiator.next()
    t.same([response.opcode, response.byte3, response.data.toString('hex', 2)], [OP.RESPONSE, 2, '70000b000000000a00000000470500000000'])
  }
  t.comment('immediate data')
  const command = {opcode: OP.COMMAND, flags: 0xa1, lun: lunBytes(1), itt: 5, at20: 512, cdb: rw10(CODE.WRITE, 0, 1)}
  sendBroken(initiator, {...command, at24: 1, data}, inDataDigest)
  await expectReject(OP.COMMAND)
  await expectCrcError()
  t.comment('with more to follow')
  sendBroken(initiator, {...command, flags: 0x21, at20: 1024, at24: 2, cdb: rw10(CODE.WRITE, 0, 2), data}, () => 60)
  await expectReject(OP.COMMAND)
  await initiator.ping()
  initiator.send({opcode: OP.DATA_OUT, itt: 5, at20: NONE, at40: 512, data})
  await expectCrcError()
  t.comment('unsolicited data')
  initiator.send({...command, flags: 0x21, at24: 3, at20: 1024, cdb: rw10(CODE.WRITE, 0, 2)})
  sendBroken(initiator, {opcode: OP.DATA_OUT, flags: 0, itt: 5, at20: NONE, data}, inDataDigest)
  await expectReject(OP.DATA_OUT)
  initiator.send({opcode: OP.DATA_OUT, itt: 5, at20: NONE, at36: 1, at40: 512, data})
  await expectCrcError()
  t.comment('data that was asked for')
  initiator.send({...command, at24: 4, at20: 1024, cdb: rw10(CODE.WRITE, 0, 2)})
  const r2t = await initiator.next()
  sendBroken(initiator, {opcode: OP.DATA_OUT, flags: 0, itt: 5, at20: r2t.at20, data}, inDataDigest)
  await expectReject(OP.DATA_OUT)
  initiator.send({opcode: OP.DATA_OUT, itt: 5, at20: r2t.at20, at36: 1, at40: 512, data})
  await expectCrcError()
  t.comment('other requests')
  sendBroken(initiator, {opcode: OP.NOP_OUT, itt: 6, at20: NONE, at24: 5, data}, inDataDigest)
  await expectReject(OP.NOP_OUT)
  sendBroken(initiator, {opcode: OP.TEXT | IMMEDIATE, itt: 6, at20: NONE, at24: 6, data: Buffer.from('SendTargets=\0')}, inDataDigest)
  await expectReject(OP.TEXT)
  t.ok(device.bytes.every(byte => byte === 0), 'nothing was written')
  t.comment('and it goes on')
  initiator.cmdSN = 6
  const written = randomBytes(8192)
  await initiator.write(0, written)
  t.ok((await initiator.read(0, 16)).equals(written))
  t.same([initiator.expCmdSN, device.running], [8, 0])
  initiator.kill()
})

t.test('data of any length and alignment, with padding', async t => {
  const {port, device} = await serve(t)
  for (const digests of [BOTH, {data: true}, {header: true}, {}]) {
    const initiator = await Initiator.open(port, {digests, piece: 1021})
    for (const length of [1, 2, 3, 4, 5, 100, 511]) {
      const answer = await initiator.ping(randomBytes(length))
      t.equal(answer.data.length, length)
    }
    const data = randomBytes(20 * 512)
    await initiator.write(1, data)
    t.ok(device.bytes.subarray(512, 512 + data.length).equals(data))
    const part = await initiator.run(rw10(CODE.READ, 1, 20), {read: 1001})
    t.ok(part.data.equals(data.subarray(0, 1001)))
    initiator.kill()
  }
})

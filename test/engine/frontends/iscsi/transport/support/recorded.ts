import {FakeDeviceServer, CODE} from './fake-device-server.js'
import {INITIATOR, TARGET} from './initiator.js'
import {encode, IMMEDIATE, loginPdu, lunBytes, NONE, OP, rw10, text, type Digests, type Pdu} from './wire.js'

/** The volume of a recorded session: with something on it. */
export function recordedDevice(): FakeDeviceServer {
  const device = new FakeDeviceServer(256 * 1024)
  device.bytes.write('something that was here before', 1000)
  return device
}

/** The login of a recorded session: both stages, one of them in pieces. */
export function recordedLogin(digests: Digests = {}): Buffer {
  const keys = text({
    HeaderDigest: digests.header === true ? 'CRC32C' : 'None',
    DataDigest: digests.data === true ? 'CRC32C' : 'None',
    InitialR2T: 'No',
    FirstBurstLength: '512',
    MaxBurstLength: '512',
    MaxRecvDataSegmentLength: '1000',
    'X-unknown': 'yes',
  })
  return Buffer.concat([
    encode(loginPdu({stage: 0, next: 1, text: {InitiatorName: INITIATOR, TargetName: TARGET, AuthMethod: 'None'}})),
    encode(loginPdu({transit: false, moreFollows: true, text: keys.subarray(0, 30)})),
    encode(loginPdu({text: keys.subarray(30)})),
  ])
}

/** Its requests; the answers do not depend on how they arrive, nor on when. */
export function recordedRequests(): Pdu[] {
  const lun = lunBytes(1)
  const data = Buffer.from('written '.repeat(200))
  let cmdSN = 1
  const command = (itt: number, flags: number, code: number, blocks: number, fields: Partial<Pdu> = {}): Pdu => ({
    opcode: OP.COMMAND,
    flags: 0x80 | flags | 1,
    lun,
    itt,
    at20: blocks * 512,
    at24: cmdSN++,
    cdb: rw10(code, 1, blocks),
    ...fields,
  })
  return [
    command(10, 0x40, CODE.READ, 3),
    command(11, 0x20, CODE.WRITE, 1, {data: data.subarray(0, 512)}),
    // Immediate, unsolicited and solicited data.
    command(12, 0x20, CODE.WRITE, 3, {flags: 0x21, data: data.subarray(0, 177)}),
    {opcode: OP.DATA_OUT, flags: 0, lun, itt: 12, at20: NONE, at36: 0, at40: 177, data: data.subarray(177, 400)},
    {opcode: OP.NOP_OUT | IMMEDIATE, itt: 13, at20: NONE, at24: cmdSN, data: Buffer.from('ping!')},
    {opcode: OP.DATA_OUT, flags: 0x80, lun, itt: 12, at20: NONE, at36: 1, at40: 400, data: data.subarray(400, 512)},
    {opcode: OP.DATA_OUT, flags: 0x80, lun, itt: 12, at20: 0, at36: 0, at40: 512, data: data.subarray(512, 1024)},
    {opcode: OP.DATA_OUT, flags: 0x80, lun, itt: 12, at20: 1, at36: 0, at40: 1024, data: data.subarray(1024, 1536)},
    command(14, 0, CODE.FAIL, 0),
    command(15, 0x20, CODE.PARAMETERS, 0, {at20: 9, cdb: Buffer.from('150000000900'.padEnd(32, '0'), 'hex'), data: Buffer.from('parameter')}),
    {opcode: OP.TEXT, itt: 16, at20: NONE, at24: cmdSN++, data: text({SendTargets: TARGET})},
    command(17, 0x40, CODE.READ, 8),
    {opcode: OP.TMF | IMMEDIATE, flags: 0x81, lun, itt: 18, at20: 17, at24: cmdSN, at32: cmdSN - 1},
    {opcode: OP.SNACK, itt: 17, at20: NONE},
    {opcode: 0x1e, itt: 19, data: Buffer.from('what is this?')},
    command(20, 0x60, CODE.READ, 1),
    {opcode: OP.LOGOUT, itt: 21, at24: cmdSN++},
  ]
}

export function recordedSession(digests: Digests = {}): Buffer {
  return Buffer.concat([recordedLogin(digests), ...recordedRequests().map(pdu => encode(pdu, digests))])
}

import t from 'tap'
import {converse} from './support/raw.js'
import {recordedDevice, recordedLogin, recordedSession} from './support/recorded.js'
import {serve} from './support/served.js'
import {decode, decodeAll, OP, type Digests} from './support/wire.js'

/** Answers tell the port that they were obtained at, and the number of the session. */
function comparable(answer: Buffer, port: number): string {
  const text = answer.toString('latin1').replaceAll(`${port},1`, 'PORT,1')
  // The TSIH is in the last response of the login.
  return text.replace(/(\x80\x00\x00\x01\x00\x01)[^]{2}/g, '$1..')
}

for (const digests of [{}, {header: true, data: true}] satisfies Digests[]) {
  t.test(`a session cut at every place, digests: ${JSON.stringify(digests)}`, async t => {
    const whole = recordedSession(digests)
    // One target for all, as digests cover the port that its answers tell.
    const served = await serve(t, {device: recordedDevice()})
    const answer = await converse(served.port, [whole])
    const wanted = comparable(answer, served.port)
    const bytes = Buffer.from(served.device.bytes)
    const opcodes = decodeAll(answer.subarray(loginAnswerBytes(answer)), digests).map(pdu => pdu.opcode)
    t.same(opcodes, [
      ...Array.from({length: 3}, () => OP.DATA_IN),
      OP.RESPONSE,
      OP.NOP_IN,
      OP.R2T,
      OP.R2T,
      OP.RESPONSE,
      OP.RESPONSE,
      OP.RESPONSE,
      OP.TEXT_RESPONSE,
      ...Array.from({length: 8}, () => OP.DATA_IN),
      OP.TMF_RESPONSE,
      OP.REJECT,
      OP.REJECT,
      OP.RESPONSE,
      OP.LOGOUT_RESPONSE,
    ])
    t.same(served.reasons(), [])

    const cuts = Array.from({length: whole.length - 1}, (_, index) => index + 1)
    const fresh = recordedDevice().bytes
    const wrong: number[] = []
    for (const cut of cuts) {
      served.device.bytes.set(fresh)
      const given = await converse(served.port, [whole.subarray(0, cut), whole.subarray(cut)])
      if (comparable(given, served.port) !== wanted || !served.device.bytes.equals(bytes)) wrong.push(cut)
    }
    t.same(wrong, [], 'the same answers and the same data')
    t.same([served.reasons(), served.server.connections, served.device.running], [[], 0, 0])
  })
}

/** The answers to the login, which are without digests. */
function loginAnswerBytes(answer: Buffer): number {
  let at = 0
  while (answer[at] === OP.LOGIN_RESPONSE) at += decode(answer.subarray(at))!.length
  return at
}

t.test('byte by byte', async t => {
  const whole = recordedSession()
  const {port, reasons} = await serve(t, {device: recordedDevice()})
  const wanted = comparable(await converse(port, [whole]), port)
  const other = await serve(t, {device: recordedDevice()})
  t.equal(comparable(await converse(other.port, Array.from(whole, byte => Buffer.of(byte))), other.port), wanted)
  t.same([...reasons(), ...other.reasons()], [])
})

t.test('a session that breaks off at every place', async t => {
  const whole = recordedSession()
  const {port, server, device} = await serve(t, {device: recordedDevice()})
  const loginBytes = recordedLogin().length
  for (let length = 1; length < whole.length; length += length < loginBytes ? 17 : 5) await converse(port, [whole.subarray(0, length)])
  t.same([server.connections, server.sessions, device.running], [0, 0, 0])
})

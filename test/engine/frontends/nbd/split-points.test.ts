import t from 'tap'
import {serve} from './support/served.js'
import {converse, sessionBytes, sessionDevice} from './support/session.js'

t.test('a session may arrive cut at any point', async t => {
  const {path, device, reasons} = await serve(t, {device: sessionDevice()})
  const bytes = sessionBytes()
  const before = Buffer.from(device.bytes)
  const whole = inOrder(await converse(path, [bytes]))
  const after = Buffer.from(device.bytes)
  t.ok(whole.length > 600 && !after.equals(before))
  const wrong: number[] = []
  for (let cut = 1; cut < bytes.length; cut++) {
    before.copy(device.bytes)
    const answer = await converse(path, [bytes.subarray(0, cut), bytes.subarray(cut)])
    if (!inOrder(answer).equals(whole) || !device.bytes.equals(after)) wrong.push(cut)
  }
  t.same(wrong, [], `all ${bytes.length - 1} points`)

  before.copy(device.bytes)
  const single = await converse(path, Array.from(bytes, byte => Buffer.of(byte)))
  t.ok(inOrder(single).equals(whole) && device.bytes.equals(after), 'one byte at a time')
  t.same(reasons(), [])
})

/** The same answer with its chunks in the order of their cookies: only that may depend on when a request arrives. */
function inOrder(answer: Buffer): Buffer {
  const first = answer.indexOf('668e33ef', 'hex')
  const chunks: Buffer[] = []
  for (let at = first; at < answer.length; ) {
    const end = at + 20 + answer.readUInt32BE(at + 16)
    chunks.push(answer.subarray(at, end))
    at = end
  }
  return Buffer.concat([answer.subarray(0, first), ...chunks.sort((one, other) => Number(one.readBigUInt64BE(8) - other.readBigUInt64BE(8)))])
}

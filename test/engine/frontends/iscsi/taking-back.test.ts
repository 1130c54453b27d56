// Commands that are taken back while the volume is at work on them, transport and disk together: SAM-5, 5.6, with TAS 1.
import t, {type Test} from 'tap'
import {iscsiFrontend} from '../../../../src/engine/frontends/iscsi/iscsi-frontend.js'
import {MemoryDevice} from '../../support/memory-device.js'
import {Initiator, type Result} from './transport/support/initiator.js'
import {eventually, recordedLog} from './transport/support/served.js'
import {hex, rw10} from './transport/support/wire.js'

const [GOOD, CHECK, CONFLICT, TASK_ABORTED] = [0x00, 0x02, 0x18, 0x40]
const CLEAR_TASK_SET = 4
const LUN_RESET = 5
const REGISTER = '00'
const RESERVE = '01'
const PREEMPT_AND_ABORT = '05'
const WRITE_EXCLUSIVE = '01'
const [MINE, THEIRS, NONE] = ['aa'.repeat(8), 'bb'.repeat(8), '00'.repeat(8)]

async function serve(t: Test): Promise<{device: MemoryDevice; one: Initiator; two: Initiator}> {
  const device = new MemoryDevice(1024 * 1024)
  const frontend = await iscsiFrontend.open({volume: 'vol', device, listen: {kind: 'tcp', host: '127.0.0.1', port: 0}, log: recordedLog().log})
  t.teardown(() => frontend.close(0))
  const port = Number(new URL(frontend.endpoint).port)
  const [one, two] = [await Initiator.open(port, {name: 'iqn.2000-01.org.example:one'}), await Initiator.open(port, {name: 'iqn.2000-01.org.example:two'})]
  t.teardown(() => [one, two].forEach(initiator => initiator.kill()))
  for (const initiator of [one, two]) t.equal((await initiator.run(Buffer.alloc(16))).status, CHECK, 'told of the power on')
  return {device, one, two}
}

function reserveOut(initiator: Initiator, action: string, key: string, serviceKey: string): Promise<Result> {
  return initiator.run(hex(`5f ${action} ${WRITE_EXCLUSIVE} 00 00 00000018 00`, '00'.repeat(6)), {write: hex(key, serviceKey, NONE)})
}

/** What the next command is told, as key, code and qualifier; undefined when it is nothing. */
async function told(initiator: Initiator): Promise<string | undefined> {
  const {status, sense} = await initiator.run(Buffer.alloc(16))
  return status === GOOD ? undefined : [sense[2]! & 0x0f, sense[12], sense[13]].map(part => part!.toString(16)).join('/')
}

for (const [what, action, attention] of [['CLEAR TASK SET', CLEAR_TASK_SET, '6/2f/0'], ['LOGICAL UNIT RESET', LUN_RESET, '6/29/3']] as const) {
  t.test(what, async t => {
    const {device, one, two} = await serve(t)
    device.mode = 'held'
    let answered = false
    const own = one.run(rw10(0x28, 0, 8), {read: 4096}).then(() => (answered = true))
    own.catch(() => undefined)
    const read = two.run(rw10(0x28, 0, 8), {read: 4096})
    const write = two.run(rw10(0x2a, 0, 8), {write: Buffer.alloc(4096, 1)})
    await eventually(() => device.held === 3, 'all are under way')
    let done = false
    const managed = one.manage(action).finally(() => (done = true))
    await two.ping()
    t.notOk(done, 'it waits for the volume')
    device.mode = 'now'
    device.release()
    t.equal(await managed, 0)
    t.same([(await read).status, (await write).status], [TASK_ABORTED, TASK_ABORTED])
    t.equal(await told(two), attention)
    await one.ping()
    t.notOk(answered, 'its own command gets no answer')
    t.equal(device.inFlight, 0)
  })
}

t.test('PREEMPT AND ABORT', async t => {
  const {device, one, two} = await serve(t)
  for (const [initiator, key] of [[one, MINE], [two, THEIRS]] as const) t.equal((await reserveOut(initiator, REGISTER, NONE, key)).status, GOOD)
  t.equal((await reserveOut(two, RESERVE, THEIRS, NONE)).status, GOOD)
  t.equal((await one.run(rw10(0x2a, 0, 8), {write: Buffer.alloc(4096)})).status, CONFLICT)
  device.mode = 'held'
  const read = two.run(rw10(0x28, 8, 8), {read: 4096})
  const write = two.run(rw10(0x2a, 0, 8), {write: Buffer.alloc(4096, 1)})
  const own = one.run(rw10(0x28, 8, 8), {read: 4096})
  await eventually(() => device.held === 3, 'all are under way')
  let done = false
  const preempted = reserveOut(one, PREEMPT_AND_ABORT, MINE, THEIRS).finally(() => (done = true))
  await two.ping()
  t.notOk(done, 'it waits for the volume: nothing of the other one is written later')
  device.mode = 'now'
  device.release()
  t.equal((await preempted).status, GOOD)
  t.same([(await read).status, (await write).status], [TASK_ABORTED, TASK_ABORTED], 'the other one is told')
  t.equal((await own).status, GOOD, 'what is not preempted goes on')
  t.equal(await told(two), '6/2a/5')
  t.equal((await two.run(rw10(0x2a, 0, 8), {write: Buffer.alloc(4096, 2)})).status, CONFLICT)
  t.equal((await one.run(rw10(0x2a, 0, 8), {write: Buffer.alloc(4096, 3)})).status, GOOD)
  t.equal(device.bytes[0], 3)
})

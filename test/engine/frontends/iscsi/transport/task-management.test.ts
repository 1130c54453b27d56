import t from 'tap'
import {CODE} from './support/fake-device-server.js'
import {Initiator} from './support/initiator.js'
import {eventually, serve} from './support/served.js'
import {IMMEDIATE, lunBytes, NONE, OP, rw10} from './support/wire.js'

const ABORT_TASK = 1
const ABORT_TASK_SET = 2
const CLEAR_ACA = 3
const CLEAR_TASK_SET = 4
const LUN_RESET = 5
const WARM_RESET = 6
const COLD_RESET = 7
const REASSIGN = 8

const ready = Buffer.alloc(16)
const TASK_ABORTED = 0x40

/** Sends a task management request and gives the promise of its outcome. */
function managing(initiator: Initiator, action: number, fields: {lun?: number; task?: number; refCmdSN?: number} = {}): {outcome: Promise<number>; answered: () => boolean} {
  let answered = false
  const outcome = initiator.manage(action, fields).finally(() => (answered = true))
  return {outcome, answered: () => answered}
}

t.test('ABORT TASK is answered when the device server has let go of it', async t => {
  const {port, device} = await serve(t)
  const initiator = await Initiator.open(port)
  device.mode = 'held'
  const other = initiator.run(ready, {itt: 7})
  initiator.run(ready, {itt: 8}).catch(() => undefined)
  await eventually(() => device.held === 2, 'both run')
  const {outcome, answered} = managing(initiator, ABORT_TASK, {task: 8})
  const pings = await Initiator.open(port, {name: 'iqn.2000-01.org.example:two'})
  await pings.ping()
  t.notOk(answered())
  device.release()
  t.equal(await outcome, 0)
  t.equal((await other).status, 0, 'the other command is answered')
  t.equal(await initiator.manage(ABORT_TASK, {task: 8}), 1, 'there is no such task any more')
  t.equal(await initiator.manage(ABORT_TASK, {task: 7}), 1)
  device.mode = 'now'
  t.equal((await initiator.run(ready, {itt: 8})).status, 0, 'its tag can be used again')
  initiator.kill()
  pings.kill()
})

t.test('ABORT TASK of another unit, or of none', async t => {
  const {port, device} = await serve(t)
  const initiator = await Initiator.open(port)
  device.mode = 'held'
  const task = initiator.run(ready, {itt: 7})
  await eventually(() => device.held === 1, 'it runs')
  t.equal(await initiator.manage(ABORT_TASK, {task: 7, lun: 0}), 1)
  t.equal(await initiator.manage(ABORT_TASK, {task: 999}), 1)
  device.release()
  t.equal((await task).status, 0)
  initiator.kill()
})

t.test('ABORT TASK of a write that still waits for data', async t => {
  const {port, device, reasons} = await serve(t)
  const initiator = await Initiator.open(port, {immediate: false, initialR2T: true})
  initiator.send({opcode: OP.COMMAND, flags: 0xa1, lun: lunBytes(1), itt: 7, at20: 4096, at24: 1, cdb: rw10(CODE.WRITE, 0, 8)})
  const r2t = await initiator.next()
  t.equal(await initiator.manage(ABORT_TASK, {task: 7}), 0)
  t.same(device.events.at(-1), ['end', 0, true])
  t.equal(device.running, 0)
  t.comment('data that was on its way')
  initiator.send({opcode: OP.DATA_OUT, flags: 0, itt: 7, at20: r2t.at20, data: Buffer.alloc(2048, 1)})
  initiator.send({opcode: OP.DATA_OUT, itt: 7, at20: r2t.at20, at36: 1, at40: 2048, data: Buffer.alloc(2048, 1)})
  await initiator.ping()
  t.equal(device.bytes[0], 0, 'is dropped')
  initiator.send({opcode: OP.DATA_OUT, itt: 7, at20: r2t.at20, data: Buffer.alloc(2048, 1)})
  t.equal((await initiator.next()).opcode, OP.REJECT, 'and what comes after it is not expected')
  t.same(reasons(), [])
  initiator.kill()
})

t.test('ABORT TASK of a write whose unsolicited data is still coming', async t => {
  const {port, device} = await serve(t)
  device.mode = 'held'
  const initiator = await Initiator.open(port)
  for (const code of [CODE.WRITE, CODE.LATE, CODE.FAIL]) {
    initiator.send({opcode: OP.COMMAND | IMMEDIATE, flags: 0x21, lun: lunBytes(1), itt: 7, at20: 4096, cdb: rw10(code, 0, 8), data: Buffer.alloc(512, 1)})
    await initiator.ping()
    const outcome = initiator.manage(ABORT_TASK, {task: 7})
    const pings = await Initiator.open(port, {name: 'iqn.2000-01.org.example:two'})
    await pings.ping()
    pings.kill()
    device.release()
    t.equal(await outcome, 0, `code ${code}`)
    initiator.send({opcode: OP.DATA_OUT, itt: 7, at20: NONE, at40: 512, data: Buffer.alloc(3584, 1)})
    await initiator.ping()
  }
  t.equal(device.running, 0)
  initiator.kill()
})

t.test('ABORT TASK of a command that has not come yet', async t => {
  const {port, device} = await serve(t)
  const initiator = await Initiator.open(port)
  const command = (at24: number): void => initiator.send({opcode: OP.COMMAND, flags: 0x81, lun: lunBytes(1), itt: at24, at24, cdb: ready})
  initiator.cmdSN = 4
  t.equal(await initiator.manage(ABORT_TASK, {task: 2, refCmdSN: 2}), 0)
  t.equal(await initiator.manage(ABORT_TASK, {task: 9, refCmdSN: 900}), 1, 'outside the window')
  t.equal(await initiator.manage(ABORT_TASK, {task: 9, refCmdSN: 4}), 1, 'not before the request')
  command(3)
  command(2)
  await initiator.ping()
  t.equal(device.attributes.length, 0)
  command(1)
  t.same([(await initiator.next()).itt, (await initiator.next()).itt], [1, 3], 'it is passed over')
  await initiator.ping()
  t.same([initiator.expCmdSN, initiator.maxCmdSN], [4, 3 + 128])
  t.comment('the very next one')
  initiator.cmdSN = 6
  t.equal(await initiator.manage(ABORT_TASK, {task: 4, refCmdSN: 4}), 0)
  command(5)
  t.equal((await initiator.next()).itt, 5)
  initiator.kill()
})

t.test('functions on a task set', async t => {
  const {port, device} = await serve(t)
  device.mode = 'held'
  const one = await Initiator.open(port)
  const two = await Initiator.open(port, {name: 'iqn.2000-01.org.example:two'})
  for (const [action, event, aborted] of [
    [ABORT_TASK_SET, undefined, {one: true, two: false}],
    [CLEAR_TASK_SET, 'cleared', {one: true, two: true}],
    [LUN_RESET, 'reset', {one: true, two: true}],
  ] as const) {
    device.events.length = 0
    let answered = false
    const mine = one.run(ready).then(() => (answered = true))
    mine.catch(() => undefined)
    const theirs = two.run(ready)
    const elsewhere = one.run(ready, {lun: 0})
    await eventually(() => device.held === 3, 'all run')
    const outcome = one.manage(action)
    const pings = await Initiator.open(port, {name: 'iqn.2000-01.org.example:three'})
    await pings.ping()
    pings.kill()
    device.release()
    t.equal(await outcome, 0, `function ${action}`)
    t.equal((await theirs).status, aborted.two ? TASK_ABORTED : 0)
    t.equal((await elsewhere).status, 0, 'the other unit goes on')
    await one.ping()
    t.notOk(answered)
    t.same(
      device.events.filter(([what]) => what === 'cleared' || what === 'reset'),
      event === undefined ? [] : [[event, 'iqn.2000-01.org.example:one', 1]],
    )
  }
  one.kill()
  two.kill()
})

t.test('a reset of the target', async t => {
  const {port, device, server} = await serve(t)
  device.mode = 'held'
  const one = await Initiator.open(port)
  const two = await Initiator.open(port, {name: 'iqn.2000-01.org.example:two'})
  const theirs = two.run(ready, {lun: 0})
  await eventually(() => device.held === 1, 'it runs')
  const warm = one.manage(WARM_RESET)
  await two.ping()
  device.release()
  t.equal(await warm, 0)
  t.equal((await theirs).status, TASK_ABORTED)
  t.same(device.events.at(-1), ['reset', 'iqn.2000-01.org.example:one', undefined])
  t.equal(server.sessions, 2)
  t.equal(await one.manage(COLD_RESET), 0)
  await Promise.all([one.end(), two.end()])
  await eventually(() => server.sessions === 0, 'all sessions end')
  t.same(device.events.filter(([what]) => what === 'lost').length, 2)
})

t.test('commands that have not been started are aborted at once', async t => {
  const {port, device} = await serve(t)
  device.mode = 'held'
  const initiator = await Initiator.open(port)
  const MIB = 1024 * 1024
  for (let itt = 1; itt <= 40; itt++) initiator.run(rw10(CODE.READ, 0, 2048), {read: MIB, itt}).catch(() => undefined)
  await eventually(() => device.held === 16, 'some run')
  t.equal(await initiator.manage(ABORT_TASK, {task: 40}), 0)
  const all = initiator.manage(ABORT_TASK_SET)
  const other = await Initiator.open(port, {name: 'iqn.2000-01.org.example:two'})
  await other.ping()
  other.kill()
  t.equal(device.held, 16, 'nothing is started in their place')
  device.release()
  t.equal(await all, 0)
  await initiator.ping()
  t.same([device.held, device.running, initiator.maxCmdSN - initiator.expCmdSN], [0, 0, 127])
  initiator.kill()
})

t.test('what there is not', async t => {
  const {port} = await serve(t)
  const initiator = await Initiator.open(port)
  t.equal(await initiator.manage(REASSIGN, {task: 1}), 4)
  for (const action of [0, CLEAR_ACA, 9, 10, 127]) t.equal(await initiator.manage(action), 5, `function ${action}`)
  for (const action of [ABORT_TASK_SET, CLEAR_TASK_SET, LUN_RESET]) t.equal(await initiator.manage(action, {lun: 2}), 2, `function ${action}`)
  initiator.kill()
})

t.test('more requests than anybody needs', async t => {
  const {port, device} = await serve(t)
  const initiator = await Initiator.open(port)
  device.mode = 'held'
  initiator.run(ready, {itt: 7}).catch(() => undefined)
  await eventually(() => device.held === 1, 'it runs')
  for (let itt = 1000; itt < 1065; itt++) initiator.send({opcode: OP.TMF | IMMEDIATE, flags: 0x80 | ABORT_TASK_SET, lun: lunBytes(1), itt, at20: NONE, at24: 2})
  const reject = await initiator.next()
  t.same([reject.opcode, reject.data.readUInt32BE(16)], [OP.REJECT, 1064])
  device.release()
  for (let itt = 1000; itt < 1064; itt++) t.equal((await initiator.next()).itt, itt)
  initiator.kill()
})

t.test('the device server takes back commands of another session', async t => {
  const {port, device} = await serve(t)
  device.mode = 'held'
  const one = await Initiator.open(port)
  const two = await Initiator.open(port, {name: 'iqn.2000-01.org.example:two'})
  const dispatched: Parameters<typeof device.dispatch>[0][] = []
  const dispatch = device.dispatch.bind(device)
  device.dispatch = task => {
    dispatched.push(task)
    dispatch(task)
  }
  const aborted = two.run(ready, {itt: 5})
  const other = two.run(ready, {itt: 6, lun: 0})
  let answered = false
  one.run(ready, {itt: 5}).then(() => (answered = true), () => undefined)
  one.run(ready, {itt: 6}).catch(() => undefined)
  await eventually(() => device.held === 4, 'all run')
  const mine = dispatched.filter(task => task.nexus.initiatorName.endsWith('one')).at(-1)!
  const theirs = dispatched.find(task => task.nexus.initiatorName.endsWith('two'))!
  let done = false
  const taken = device.abortCommands(theirs.nexus, 1, mine).then(() => (done = true))
  const own = device.abortCommands(mine.nexus, 1, mine)
  await two.ping()
  t.same([done, theirs.aborted, mine.aborted], [false, true, false])
  device.release()
  await Promise.all([taken, own])
  t.equal((await aborted).status, TASK_ABORTED, 'another session is told')
  t.equal((await other).status, 0)
  await one.ping()
  t.notOk(answered, 'the session that asked for it is not')
  await device.abortCommands({...theirs.nexus, id: 999}, 1, mine)
  t.pass('a session that is gone has no commands')
  one.kill()
  two.kill()
})

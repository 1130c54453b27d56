import t from 'tap'
import {CheckCondition, REFUSED} from '../../../../../../src/engine/frontends/iscsi/scsi/check-condition.js'
import {DeviceGate, GatedIo} from '../../../../../../src/engine/frontends/iscsi/scsi/data/device-gate.js'
import {slabs} from '../../../../../../src/lib/net/slab.js'
import type {BlockDevice, Extent, Io} from '../../../../../../src/protocol/block-device.js'

/** Remembers what it is asked for, and finishes it when told to. */
class Recorder implements BlockDevice {
  readonly sizeBytes = 1024 * 1024
  readonly submitted: Io[] = []

  submit(io: Io): void {
    this.submitted.push(io)
  }

  blockStatus(): Promise<Extent[]> {
    return Promise.resolve([])
  }
}

class TestIo extends GatedIo {
  outcome: number | undefined

  constructor(
    readonly gate: DeviceGate,
    offset: number,
    length: number,
  ) {
    super()
    this.offset = offset
    this.length = length
  }

  override onData(): void {}

  override onDone(error = 0): void {
    this.outcome = error
    this.gate.done(this)
  }
}

function open(): {gate: DeviceGate; device: Recorder; io: (offset: number, length: number) => TestIo} {
  const device = new Recorder()
  const gate = new DeviceGate(device)
  return {gate, device, io: (offset, length) => new TestIo(gate, offset, length)}
}

/** Lets promises that can settle do so. */
function settle(): Promise<void> {
  return new Promise(resolve => setImmediate(resolve))
}

t.test('requests never wait for each other', async t => {
  const {gate, device, io} = open()
  const requests = [io(0, 100), io(50, 100), io(0, 1000)]
  for (const request of requests) gate.submit(request)
  t.same(device.submitted, requests)
  requests[1]!.onDone()
  requests[0]!.onDone()
  requests[2]!.onDone()
})

t.test('a claim waits for what overlaps it and came before, and holds up what comes after', async t => {
  const {gate, device, io} = open()
  const [before, beside] = [io(0, 100), io(200, 100)]
  gate.submit(before)
  gate.submit(beside)
  let held = false
  const claim = gate.claim(99, 101).then(ticket => {
    held = true
    return ticket
  })
  await settle()
  t.notOk(held)
  const [after, afterBeside] = [io(150, 10), io(200, 10)]
  gate.submit(after)
  gate.submit(afterBeside)
  t.same(device.submitted, [before, beside, afterBeside], 'only what overlaps waits')
  before.onDone()
  await settle()
  t.ok(held)
  t.equal(device.submitted.length, 3)
  gate.release(await claim)
  t.equal(device.submitted.at(-1), after)
})

t.test('claims queue up with requests, first come first served', async t => {
  const {gate, device, io} = open()
  const order: string[] = []
  const first = await gate.claim(0, 10)
  const middle = io(5, 10)
  gate.submit(middle)
  const second = gate.claim(12, 10).then(ticket => {
    order.push('second')
    return ticket
  })
  const other = await gate.claim(500, 10)
  order.push('other')
  await settle()
  t.same(order, ['other'])
  t.equal(device.submitted.length, 0)
  gate.release(first)
  t.equal(device.submitted[0], middle)
  await settle()
  t.same(order, ['other'], 'the request in between comes first')
  middle.onDone()
  const ticket = await second
  gate.release(ticket)
  gate.release(other)
})

t.test('data that has to wait is kept', async t => {
  const {gate, device, io} = open()
  const claim = await gate.claim(0, 10)
  const slab = slabs.take()
  gate.submit(io(0, 10), slab, 5)
  t.equal(slab.references, 2)
  gate.release(claim)
  t.equal(device.submitted.length, 1)
  t.equal(slab.references, 2, 'until the end of the turn')
  await settle()
  await settle()
  t.equal(slab.references, 1)
  slab.release()
})

t.test('requests may end in any order while claims come and go', async t => {
  const {gate, device, io} = open()
  for (let round = 0; round < 300; round++) {
    const requests = Array.from({length: 5}, () => io(Math.floor(Math.random() * 20), 5))
    const claims = []
    for (const request of requests) {
      gate.submit(request)
      if (Math.random() < 0.4) claims.push(gate.claim(Math.floor(Math.random() * 20), 5).then(ticket => gate.release(ticket)))
    }
    while (device.submitted.length > 0) {
      const [next] = device.submitted.splice(Math.floor(Math.random() * device.submitted.length), 1)
      next!.onDone(0)
      await Promise.resolve()
      if (device.submitted.length === 0) await settle()
    }
    await Promise.all(claims)
  }
  t.pass()
})

t.test('who has everything to itself waits for what came before, and nobody waits for it', async t => {
  const {gate, device, io} = open()
  const before = io(0, 100)
  gate.submit(before)
  let held = false
  const all = gate.claimAll().then(ticket => {
    held = true
    return ticket
  })
  const [during, elsewhere] = [io(0, 10), io(5000, 10)]
  gate.submit(during)
  gate.submit(elsewhere)
  t.same([during.outcome, elsewhere.outcome], [REFUSED, REFUSED])
  await t.rejects(gate.claim(0, 10), CheckCondition)
  await t.rejects(gate.claimAll(), CheckCondition)
  await settle()
  t.notOk(held)
  before.onDone()
  gate.release(await all)
  const after = io(0, 10)
  gate.submit(after)
  t.same(device.submitted, [before, after])
})

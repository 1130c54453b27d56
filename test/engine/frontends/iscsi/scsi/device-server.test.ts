import {randomFillSync} from 'node:crypto'
import t from 'tap'
import {DISK_COMMANDS} from '../../../../../src/engine/frontends/iscsi/scsi/disk-commands.js'
import {ERRNO} from '../../../../../src/protocol/block-device.js'
import {seededRandom} from '../../../../replica/support/random.js'
import {BUSY, CHECK, GOOD, Initiator, MemoryStore, MiB, hex, serve} from './support/served-disk.js'

const READY = '00 00 00 00 00 00'
const SENSE = '03 00 00 00 ff 00'

t.test('a new session is told that there was a reset, by each unit', async t => {
  const {server} = await serve()
  const b = new Initiator(server, 'b')
  t.equal((await b.send('12 00 00 00ff 00')).status, GOOD)
  t.equal((await b.send('a0 00 00 000000 00000100 00 00')).status, GOOD, 'these are not held up by it')
  t.equal((await b.send('28 00 00000000 00 0001 00')).sense, '6/29/00')
  t.equal((await b.send('28 00 00000000 00 0001 00')).status, GOOD)
  t.same(await b.attentions(0), ['6/29/00'])
  t.same(await b.attentions(5), [], 'not by units that do not exist')
})

t.test('REQUEST SENSE gets it as well', async t => {
  const {server} = await serve()
  const b = new Initiator(server, 'b')
  t.equal((await b.send(SENSE)).data.toString('hex'), '70000600000000' + '0a00000000' + '2900' + '00000000')
  t.equal((await b.send(SENSE)).data.toString('hex'), '70000000000000' + '0a00000000' + '0000' + '00000000')
  t.equal((await b.send('03 01 00 00 ff 00')).data.toString('hex'), '7200000000000000')
  t.equal((await b.send('03 00 00 00 04 00')).data.toString('hex'), '70000000')
  t.equal((await b.send('03 00 00 00 00 00')).data.length, 0)
  t.equal((await b.send(READY)).status, GOOD)
})

t.test('it comes before what is wrong with the command', async t => {
  const {server} = await serve()
  const b = new Initiator(server, 'b')
  t.equal((await b.send('ff 00 00 00 00 00')).sense, '6/29/00')
  t.equal((await b.send('ff 00 00 00 00 00')).sense, '5/20/00')
})

t.test('resets are told to everybody, cleared task sets to the others', async t => {
  const {a, join, server} = await serve()
  const b = await join('b')
  for (const unit of [0, 1]) await b.attentions(unit)
  server.reset(a.nexus, 1)
  t.same([await a.attentions(), await b.attentions(), await b.attentions(0)], [['6/29/03'], ['6/29/03'], []])
  await a.attentions(0)
  server.reset(a.nexus, undefined)
  t.same([await a.attentions(), await b.attentions(0), await b.attentions(7)], [['6/29/03'], ['6/29/03'], []])
  await b.attentions()
  server.taskSetCleared(a.nexus, 1)
  t.same([await a.attentions(), await b.attentions()], [[], ['6/2f/00']])
  server.taskSetCleared(a.nexus, 9)
  t.same([server.hasUnit(0), server.hasUnit(1), server.hasUnit(2), server.hasUnit(-1)], [true, true, false, false])
})

t.test('a command of a session that is gone is not carried out', async t => {
  const {a, server, device} = await serve()
  server.nexusLost(a.nexus)
  device.records = []
  t.equal((await a.send('2a 00 00000000 00 0001 00', {out: Buffer.alloc(512)})).status, BUSY)
  t.same(device.records, [])
})

t.test('diagnostics and defects, byte for byte', async t => {
  const {a} = await serve()
  t.equal((await a.send('1d 04 00 0000 00')).status, GOOD)
  t.equal((await a.send('1d 14 00 0000 00')).status, GOOD)
  t.equal((await a.send('1d 20 00 0000 00')).sense, '5/24/00')
  t.equal((await a.send('1d 10 00 0004 00', {out: Buffer.alloc(4)})).sense, '5/24/00')
  t.equal((await a.send('1c 01 00 00ff 00')).data.toString('hex'), '0000000100')
  t.equal((await a.send('1c 01 40 00ff 00')).sense, '5/24/00')
  t.equal((await a.send('37 00 1d 00000000 00ff 00')).data.toString('hex'), '001d0000')
  t.equal((await a.send('b7 0b 00000000 000000ff 00 00')).data.toString('hex'), '000b000000000000')
})

t.test('a failure that nobody foresaw ends the command, not the engine', async t => {
  const {a, device} = await serve()
  device.submit = () => {
    throw new TypeError('a bug')
  }
  t.equal((await a.send('35 00 00000000 00 0000 00')).sense, '4/44/00')
  t.equal((await a.send(READY)).status, GOOD)
})

t.test('whatever comes, each command is finished once and the engine lives', async t => {
  const random = seededRandom(t)
  const store = new MemoryStore()
  const {a, join, device, server} = await serve(4 * MiB, 4 * MiB, store)
  const initiators = [a, await join('b'), await join('c')]
  device.mode = 'later'
  device.fault = () => (random.oneIn(20) ? [ERRNO.EIO, ERRNO.ENOSPC, 71][random.below(3)]! : 0)
  const statuses = new Map<number, number>()
  const opcodes = DISK_COMMANDS.all
  const pending: Promise<void>[] = []
  for (let round = 0; round < 6000; round++) {
    const initiator = initiators[random.below(initiators.length)]!
    const cdb = Buffer.alloc(16)
    random.fill(cdb)
    // Mostly commands that there are, with a few bits wrong and small numbers: pure noise is refused at the door.
    if (!random.oneIn(10)) {
      const {opcode, action, allowed} = opcodes[random.below(opcodes.length)]!
      for (let index = 1; index < allowed.length; index++) cdb[index]! &= allowed[index]! & (random.oneIn(3) ? 0xff : 0x0f)
      for (let index = 2; index < 9; index++) if (!random.oneIn(6)) cdb[index] = 0
      cdb[0] = opcode
      if (action !== undefined) cdb[1] = (cdb[1]! & 0xe0) | action
      if (random.oneIn(30)) cdb[random.below(16)] = random.below(256)
    }
    if (cdb[0] === 0x48 && !random.oneIn(20)) continue
    const out = Buffer.alloc([0, 24, 512, 1024, 8192, random.below(70_000)][random.below(6)]!)
    if (random.oneIn(2)) random.fill(out)
    const task = initiator.start(cdb, {
      out,
      in: [0, 36, 512, 65536, random.below(300_000)][random.below(5)]!,
      lun: random.oneIn(10) ? random.below(4) - 1 : 1,
      late: random.oneIn(2),
      pieceBytes: 1 + random.below(20_000),
    })
    pending.push(
      task.result.then(({status, sense}) => {
        statuses.set(status, (statuses.get(status) ?? 0) + 1)
        // Keeping reservations fails now and then; nothing else may.
        if (sense === '4/44/00' && cdb[0] !== 0x5f && cdb[0] !== 0x48) t.fail(`internal failure of ${cdb.toString('hex')}`)
      }),
    )
    if (random.oneIn(40)) task.abort()
    if (random.oneIn(200)) server.reset(initiator.nexus, random.oneIn(2) ? 1 : undefined)
    if (random.oneIn(300)) {
      server.nexusLost(initiator.nexus)
      server.nexusAdded(initiator.nexus)
    }
    store.broken = random.oneIn(10)
    if (random.oneIn(4)) await new Promise(resolve => setImmediate(resolve))
  }
  await Promise.all(pending)
  t.comment([...statuses].map(([status, count]) => `${status}: ${count}`).join(', '))
  for (const initiator of initiators) t.equal(initiator.open.size, 0)
  t.equal(device.inFlight, 0)
  t.ok(statuses.get(GOOD)! > 300 && statuses.get(CHECK)! > 300, 'both kinds were seen')
})

t.test('parameter lists made of noise', async t => {
  const random = seededRandom(t)
  const {a} = await serve(4 * MiB)
  const forms = [
    (length: number) => `15 10 00 00 ${(length & 0xff).toString(16).padStart(2, '0')} 00`,
    (length: number) => `55 10 00 00000000 ${length.toString(16).padStart(4, '0')} 00`,
    (length: number) => `42 00 00000000 00 ${length.toString(16).padStart(4, '0')} 00`,
    (length: number) => `83 00 0000000000000000 ${length.toString(16).padStart(8, '0')} 00 00`,
    (length: number) => `5f 0${random.below(7)} 0${random.below(9)} 00 00 ${length.toString(16).padStart(8, '0')} 00`,
  ]
  for (let round = 0; round < 4000; round++) {
    const out = randomFillSync(Buffer.alloc(random.oneIn(2) ? 24 : random.below(200)))
    // Small numbers in most places: lengths and offsets that are nearly right.
    for (let index = 0; index < out.length; index++) if (!random.oneIn(3)) out[index] = random.oneIn(3) ? random.below(40) : 0
    const {sense, status} = await a.send(hex(forms[random.below(forms.length)]!(out.length)), {out})
    if (sense === '4/44/00') t.fail(`internal failure: ${out.toString('hex')}`)
    if (status === CHECK && sense.startsWith('6/')) await a.attentions()
  }
  t.equal((await a.send(READY)).status, GOOD)
})

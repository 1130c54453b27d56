import t from 'tap'
import {DISK_COMMANDS} from '../../../../../../src/engine/frontends/iscsi/scsi/disk-commands.js'
import {GOOD, be, serve} from '../support/served-disk.js'

const ask = (options: number, opcode: number, action: number, length = 0xffff): string => `a3 0c ${be(options, 1)} ${be(opcode, 1)} ${be(action, 2)} ${be(length, 4)} 00 00`

t.test('all commands', async t => {
  const {a} = await serve()
  for (const [options, size] of [[0x00, 8], [0x80, 20]] as const) {
    const {data} = await a.send(ask(options, 0, 0))
    t.equal(data.readUInt32BE(0), data.length - 4)
    t.equal(data.length, 4 + DISK_COMMANDS.all.length * size)
    DISK_COMMANDS.all.forEach(({opcode, action, usageBytes}, index) => {
      const flags = (size === 20 ? 2 : 0) | (action === undefined ? 0 : 1)
      const expected = `${be(opcode, 1)}00${be(action ?? 0, 2)}00${be(flags, 1)}${be(usageBytes.length, 2)}`
      const at = 4 + index * size
      t.equal(data.toString('hex', at, at + 8), expected)
      if (size === 20) t.equal(data.toString('hex', at + 8, at + 16), '000a000000000000')
    })
  }
  t.equal((await a.send(ask(0, 0, 0, 7))).data.length, 7)
})

t.test('one command, byte for byte', async t => {
  const {a} = await serve()
  for (const [cdb, expected] of [
    [ask(1, 0x28, 0), '0003000a' + '28f8ffffffff00ffff00'],
    [ask(1, 0x28, 7), '0003000a' + '28f8ffffffff00ffff00'],
    [ask(0x81, 0x00, 0), '00830006' + '000000000000' + '000a0000000000000000003c'],
    [ask(2, 0x9e, 0x10), '00030010' + '9e100000000000000000ffffffff0000'],
    [ask(3, 0x9e, 0x12), '00030010' + '9e12ffffffffffffffffffffffff0000'],
    [ask(3, 0x12, 0), '00030006' + '1201ffffff00'],
    [ask(3, 0x12, 1), '00010000'],
    [ask(1, 0xff, 0), '00010000'],
    [ask(2, 0xff, 1), '00010000'],
    [ask(2, 0x9e, 0x11), '00010000'],
    [ask(3, 0x9e, 0), '00010000'],
  ] as const) {
    const {status, data} = await a.send(cdb)
    t.equal(status, GOOD)
    t.equal(data.toString('hex'), expected, cdb)
  }
})

t.test('questions that do not go together', async t => {
  const {a} = await serve()
  for (const cdb of [ask(1, 0x9e, 0x10), ask(2, 0x28, 0), ask(4, 0, 0), ask(7, 0, 0)]) t.equal((await a.send(cdb)).sense, '5/24/00')
})

t.test('the controller has commands of its own', async t => {
  const {a} = await serve()
  await a.attentions(0)
  t.equal((await a.send(ask(1, 0x28, 0), {lun: 0})).data.toString('hex'), '00010000')
  t.equal((await a.send(ask(1, 0x12, 0), {lun: 0})).data.toString('hex'), '00030006' + '1201ffffff00')
  t.equal((await a.send('28 00 00000000 00 0001 00', {lun: 0})).sense, '5/20/00')
})

t.test('task management functions and port groups, byte for byte', async t => {
  const {a} = await serve()
  t.equal((await a.send('a3 0d 00 00 0000 00000100 00 00')).data.toString('hex'), 'da000000')
  t.equal((await a.send('a3 0d 80 00 0000 00000100 00 00')).data.toString('hex'), 'da00000c' + '00'.repeat(12))
  t.equal((await a.send('a3 0a 00000000 00000100 00 00')).data.toString('hex'), '0000000c' + '0001000100000001' + '00000001')
  t.equal((await a.send('a3 2a 00000000 00000100 00 00')).data.toString('hex'), '0000001010000000' + '0001000100000001' + '00000001')
  t.equal((await a.send('a3 4a 00000000 00000100 00 00')).sense, '5/24/00')
})

import t from 'tap'
import {CommandSet, strayBit, type CommandRow} from '../../../../../src/engine/frontends/iscsi/scsi/command-set.js'
import {CONTROLLER_COMMANDS} from '../../../../../src/engine/frontends/iscsi/scsi/controller.js'
import {DISK_COMMANDS} from '../../../../../src/engine/frontends/iscsi/scsi/disk-commands.js'
import type {Disk} from '../../../../../src/engine/frontends/iscsi/scsi/disk.js'
import {hex} from './support/served-disk.js'

/** Length of a CDB by the group of its operation code. */
const GROUP_BYTES = [6, 10, 10, undefined, 16, 12]

t.test('the tables are sound', async t => {
  for (const {all} of [DISK_COMMANDS, CONTROLLER_COMMANDS]) {
    const seen = new Set<string>()
    for (const {name, opcode, action, usageBytes, allowed, start, run} of all) {
      t.equal(usageBytes[0], opcode, name)
      t.equal(usageBytes.length, GROUP_BYTES[opcode >> 5], name)
      t.equal(allowed.length, usageBytes.length, name)
      t.equal(usageBytes.at(-1), 0, `${name}: neither NACA nor LINK`)
      t.not(start === undefined, run === undefined, name)
      if (action !== undefined) t.equal(usageBytes[1]! & 0x1f, action, name)
      const id = `${opcode}/${action}`
      t.notOk(seen.has(id), name)
      seen.add(id)
    }
  }
})

t.test('commands are found by operation code and service action', async t => {
  t.equal(DISK_COMMANDS.find(hex('28'.padEnd(32, '0')))?.name, 'READ(10)')
  t.equal(DISK_COMMANDS.find(hex('9e10'.padEnd(32, '0')))?.name, 'READ CAPACITY(16)')
  t.equal(DISK_COMMANDS.find(hex('9ef2'.padEnd(32, '0')))?.name, 'GET LBA STATUS', 'the rest of the byte is something else')
  t.equal(DISK_COMMANDS.find(hex('9e11'.padEnd(32, '0'))), undefined)
  t.equal(DISK_COMMANDS.find(hex('ff'.padEnd(32, '0'))), undefined)
  t.equal(DISK_COMMANDS.plain(0x9e), undefined)
  t.same([...DISK_COMMANDS.actions(0x9e)!.keys()], [0x10, 0x12])
})

t.test('stray bits, the first from the left', async t => {
  const row: CommandRow<Disk> = {action: 0x0c, name: 'test', usage: 'a3 8c 00 0f', ignored: '00 00 f0', access: 0}
  const {allowed} = new CommandSet([row]).all[0]!
  t.equal(strayBit(hex('a38cf00f'), allowed), -1)
  t.equal(strayBit(hex('a30c0000ff'), allowed), -1, 'what is behind is not looked at')
  t.equal(strayBit(hex('a3cc0000'), allowed), 8 + 6)
  t.equal(strayBit(hex('a38c0b00'), allowed), 16 + 3)
  t.equal(strayBit(hex('a38c0090'), allowed), 24 + 7)
})

// What each type of reservation lets each kind of initiator do: SPC-4 and SBC-3, "commands that are allowed in the presence of
// various reservations", as one table.
import t from 'tap'
import {CONFLICT, GOOD, be, hex, serve, type Initiator} from '../support/served-disk.js'

/** Commands by what they are to others: always fine, reading, writing. */
const COMMANDS: readonly (readonly [name: string, cdb: string, kind: 'any' | 'read' | 'write', outBytes?: number])[] = [
  ['TEST UNIT READY', '00 00 00 00 00 00', 'any'],
  ['REQUEST SENSE', '03 00 00 00 ff 00', 'any'],
  ['INQUIRY', '12 00 00 00ff 00', 'any'],
  ['REPORT LUNS', 'a0 00 00 000000 00000100 00 00', 'any'],
  ['READ CAPACITY(10)', '25 00 00000000 00 00 00 00', 'any'],
  ['READ CAPACITY(16)', '9e 10 0000000000000000 00000020 00 00', 'any'],
  ['START STOP UNIT, start', '1b 00 00 00 01 00', 'any'],
  ['PREVENT ALLOW, allow', '1e 00 00 00 00 00', 'any'],
  ['REPORT TARGET PORT GROUPS', 'a3 0a 00000000 00000100 00 00', 'any'],
  ['PERSISTENT RESERVE IN', '5e 00 00 00 00 00 00 0100 00', 'any'],
  ['READ(6)', '08 00 00 00 01 00', 'read'],
  ['READ(10)', '28 00 00000000 00 0001 00', 'read'],
  ['READ(12)', 'a8 00 00000000 00000001 00 00', 'read'],
  ['READ(16)', '88 00 0000000000000000 00000001 00 00', 'read'],
  ['VERIFY(10)', '2f 00 00000000 00 0001 00', 'read'],
  ['VERIFY(16)', '8f 00 0000000000000000 00000001 00 00', 'read'],
  ['PRE-FETCH(10)', '34 00 00000000 00 0001 00', 'read'],
  ['GET LBA STATUS', '9e 12 0000000000000000 00000018 00 00', 'read'],
  ['MODE SENSE(6)', '1a 08 3f 00 ff 00', 'read'],
  ['READ DEFECT DATA(10)', '37 00 00 00000000 0020 00', 'read'],
  ['RECEIVE DIAGNOSTIC RESULTS', '1c 01 00 00ff 00', 'read'],
  ['REPORT SUPPORTED OPERATION CODES', 'a3 0c 00 00 0000 00000100 00 00', 'read'],
  ['WRITE(6)', '0a 00 00 00 01 00', 'write', 512],
  ['WRITE(10)', '2a 00 00000000 00 0001 00', 'write', 512],
  ['WRITE(12)', 'aa 00 00000000 00000001 00 00', 'write', 512],
  ['WRITE(16)', '8a 00 0000000000000000 00000001 00 00', 'write', 512],
  ['WRITE AND VERIFY(10)', '2e 00 00000000 00 0001 00', 'write', 512],
  ['WRITE SAME(10)', '41 00 00000000 00 0001 00', 'write', 512],
  ['WRITE SAME(16)', '93 00 0000000000000000 00000001 00 00', 'write', 512],
  ['ORWRITE(16)', '8b 00 0000000000000000 00000001 00 00', 'write', 512],
  ['COMPARE AND WRITE', '89 00 0000000000000000 000000 01 00 00', 'write', 1024],
  ['UNMAP', '42 00 00000000 00 0000 00', 'write'],
  ['SYNCHRONIZE CACHE(10)', '35 00 00000000 00 0000 00', 'write'],
  ['START STOP UNIT, stop', '1b 00 00 00 00 00', 'write'],
  ['PREVENT ALLOW, prevent', '1e 00 00 00 01 00', 'write'],
  ['MODE SELECT(6)', '15 10 00 00 00 00', 'write'],
  ['SEND DIAGNOSTIC', '1d 04 00 0000 00', 'write'],
  ['EXTENDED COPY', '83 00 0000000000000000 00000000 00 00', 'write'],
  ['SANITIZE', '48 1f 00 00 00 00 00 0000 00', 'write'],
]

/** Type: what those who hold nothing may do, the registered and the others. */
const TYPES: readonly (readonly [type: number, registered: string, others: string])[] = [
  [1, 'any read', 'any read'],
  [3, 'any', 'any'],
  [5, 'any read write', 'any read'],
  [6, 'any read write', 'any'],
  [7, 'any read write', 'any read'],
  [8, 'any read write', 'any'],
]

function out(initiator: Initiator, action: number, key: number, next: number, type = 0): ReturnType<Initiator['send']> {
  return initiator.send(`5f ${be(action, 1)} ${be(type, 1)} 00 00 00000018 00`, {out: hex(be(key, 8), be(next, 8), '0000000000000000')})
}

for (const [type, registered, others] of TYPES) {
  t.test(`type ${type}`, async t => {
    const {a: holder, join} = await serve()
    const [friend, stranger] = [await join('b'), await join('c')]
    await out(holder, 0, 0, 1)
    await out(friend, 0, 0, 2)
    t.equal((await out(holder, 1, 1, 0, type)).status, GOOD)
    for (const [name, cdb, kind, outBytes = 0] of COMMANDS) {
      for (const [initiator, allowed] of [[holder, 'any read write'], [friend, registered], [stranger, others]] as const) {
        const {status} = await initiator.send(cdb, {out: Buffer.alloc(outBytes)})
        const expected = allowed.split(' ').includes(kind)
        if (expected ? status === CONFLICT : status !== CONFLICT) t.fail(`${name} by ${initiator.name}`, {status, expected})
      }
    }
    t.pass(`${COMMANDS.length} commands`)
  })
}

import t from 'tap'
import {toFileName, toInteger, toMember, toSize, toText} from '../../src/protocol/grpc/fields.js'
import {ReplicaMode} from '../../src/protocol/proto/generated/controller.js'

t.test('sizes', async t => {
  t.equal(toSize('0', 'size'), 0)
  t.equal(toSize('1099511627776', 'size'), 2 ** 40)
  t.equal(toSize(1n << 40n, 'size'), 2 ** 40)
  t.equal(toSize('9007199254740991', 'size'), Number.MAX_SAFE_INTEGER)
  const texts = ['', ' 1', '1 ', '-1', '+1', '1.0', '1e3', '0x10', '1g', 'a'.repeat(1000), '9007199254740992', '9'.repeat(19), '9'.repeat(20)]
  for (const wrong of [...texts, -1n, 1n << 53n]) {
    t.throws(() => toSize(wrong, 'ReplicaCreate: size'), {code: 'LH_USAGE', message: /^ReplicaCreate: size is .{1,80}: expected /}, String(wrong))
  }
  t.throws(() => toSize('x', 'size', 'PROTOCOL'), {code: 'LH_PROTOCOL'}, 'in a response')
})

t.test('integers', async t => {
  t.equal(toInteger(1, 1, 65_535, 'port'), 1)
  t.equal(toInteger(65_535, 1, 65_535, 'port'), 65_535)
  for (const wrong of [0, -1, 65_536, Number.NaN]) {
    t.throws(() => toInteger(wrong, 1, 65_535, 'FileSend: port'), {code: 'LH_USAGE', message: /^FileSend: port is .*: expected 1 to 65535$/})
  }
})

t.test('texts', async t => {
  t.equal(toText('x', 'name'), 'x')
  t.throws(() => toText('', 'ReplicaRevert: name'), {code: 'LH_USAGE', message: 'ReplicaRevert: name is missing'})
})

t.test('names of files', async t => {
  for (const name of ['volume-snap-S.img', '..img', 'a'.repeat(255)]) t.equal(toFileName(name, 'name'), name)
  for (const wrong of ['', '.', '..', '/', 'a/b', '../volume.meta', 'a\0', 'é'.repeat(128)]) {
    t.throws(() => toFileName(wrong, 'FileRemove: file_name'), {code: 'LH_USAGE', message: /^FileRemove: file_name is /}, JSON.stringify(wrong))
  }
})

t.test('members of an enum', async t => {
  t.equal(toMember(ReplicaMode, 2, 'mode'), ReplicaMode.ERR)
  const message = 'ReplicaUpdate: mode is 3: expected one of WO, RW, ERR'
  t.throws(() => toMember(ReplicaMode, 3, 'ReplicaUpdate: mode'), {code: 'LH_USAGE', message})
})

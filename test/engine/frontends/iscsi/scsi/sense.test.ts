import t from 'tap'
import {CONDITION, encodeSense, type SenseDetail} from '../../../../../src/engine/frontends/iscsi/scsi/sense.js'

function fixed(detail: SenseDetail): string {
  return encodeSense(CONDITION.INVALID_FIELD_IN_CDB, detail, false).toString('hex')
}

function descriptors(detail: SenseDetail): string {
  return encodeSense(CONDITION.INVALID_FIELD_IN_CDB, detail, true).toString('hex')
}

t.test('fixed format', async t => {
  t.equal(fixed({}), '70000500000000' + '0a' + '00000000' + '2400' + '00' + '000000')
  t.equal(fixed({information: 0x12345678}), 'f0000512345678' + '0a' + '00000000' + '2400' + '00' + '000000')
  t.equal(fixed({information: 0x1_0000_0000}), fixed({}), 'an address that does not fit is left out')
  t.equal(fixed({field: {in: 'cdb', byte: 0x107}}).slice(-6), 'c00107')
  t.equal(fixed({field: {in: 'cdb', byte: 1, bit: 7}}).slice(-6), 'cf0001')
  t.equal(fixed({field: {in: 'parameters', byte: 20, bit: 3}}).slice(-6), '8b0014')
  t.equal(fixed({progress: 0.5}).slice(-6), '808000')
  t.equal(fixed({progress: 1}).slice(-6), '80ffff')
})

t.test('descriptor format', async t => {
  t.equal(descriptors({}), '72052400' + '00000000')
  t.equal(descriptors({information: 2 ** 40}), '72052400' + '0000000c' + '000a8000' + '0000010000000000')
  t.equal(descriptors({field: {in: 'cdb', byte: 2}}), '72052400' + '00000008' + '02060000' + 'c0000200')
  t.equal(descriptors({information: 1, progress: 0.25}), '72052400' + '00000014' + '000a8000' + '0000000000000001' + '02060000' + '80400000')
})

t.test('conditions have codes of their own', async t => {
  const codes = Object.values(CONDITION).map(({key, asc, ascq}) => `${key}/${asc}/${ascq}`)
  t.equal(new Set(codes).size, codes.length)
})

// The bytes of a small session, PDU by PDU. The fields are those of RFC 7143 section 11, written out by hand.
import t from 'tap'
import {serve} from './support/served.js'
import {RawClient} from './support/raw.js'
import {hex, text} from './support/wire.js'

const LOGIN = [
  '43 87 00 00 00 000096', // login, transit, operational → full feature; 150 bytes
  '80 000001 0001 0000', // ISID, TSIH 0
  '00000001 0000 0000', // task tag, CID
  '00000010 00000000', // CmdSN, ExpStatSN
  '00000000 00000000 00000000 00000000',
]

t.test('a login, a read, a write, a ping and a logout', async t => {
  const {port, device} = await serve(t)
  device.bytes.fill(0xab, 1024, 1536)
  const client = await RawClient.connect(port)
  const keys = text({
    InitiatorName: 'iqn.2000-01.org.example:one',
    TargetName: 'iqn.2019-10.io.longhorn:vol',
    SessionType: 'Normal',
    HeaderDigest: 'None',
    InitialR2T: 'Yes',
    ImmediateData: 'No',
  })
  t.equal(keys.length, 0x96)
  client.socket.write(Buffer.concat([hex(...LOGIN), keys, Buffer.alloc(2)]))
  const agreed = text({TargetPortalGroupTag: '1', HeaderDigest: 'None', InitialR2T: 'Yes', ImmediateData: 'No', MaxRecvDataSegmentLength: '131072'})
  t.equal(agreed.length, 0x69)
  t.equal(
    (await client.take(48 + 0x6c)).toString('hex'),
    Buffer.concat([
      hex(
        '23 87 00 00 00 000069', // login response
        '80 000001 0001 0001', // ISID, TSIH
        '00000001 00000000',
        '00000001 00000010 0000008f', // StatSN 1, ExpCmdSN 16, MaxCmdSN: a window of 128
        '0000 0000 00000000 00000000', // success
      ),
      agreed,
      Buffer.alloc(3),
    ]).toString('hex'),
  )

  t.comment('READ(10) of block 2')
  client.socket.write(
    hex(
      '01 c1 00 00 00 000000', // SCSI command, final, read, simple
      '0001 0000 00000000', // LUN 1
      'cafe0001 00000200', // task tag, 512 bytes expected
      '00000010 00000002', // CmdSN, ExpStatSN
      '28 00 00000002 00 0001 00 000000000000',
    ),
  )
  t.equal(
    (await client.take(48 + 512)).toString('hex'),
    hex(
      '25 81 00 00 00 000200', // Data-In, final, with status; GOOD
      '00000000 00000000',
      'cafe0001 ffffffff',
      '00000002 00000011 00000090', // StatSN, ExpCmdSN, MaxCmdSN
      '00000000 00000000 00000000', // DataSN, offset, residual
      'ab'.repeat(512),
    ).toString('hex'),
  )

  t.comment('WRITE(10) of block 3, which has to be asked for')
  client.socket.write(hex('01 a1 00 00 00 000000', '0001 0000 00000000', 'cafe0002 00000200', '00000011 00000003', '2a 00 00000003 00 0001 00 000000000000'))
  const r2t = await client.take(48)
  t.equal(
    r2t.toString('hex'),
    hex(
      '31 80 00 00 00 000000',
      '0001 0000 00000000',
      'cafe0002 00000000', // task tag, transfer tag
      '00000003 00000012 00000090', // the next StatSN
      '00000000 00000000 00000200', // R2TSN, offset, length
    ).toString('hex'),
  )
  client.socket.write(hex('05 80 00 00 00 000200', '0001 0000 00000000', 'cafe0002 00000000', '00000000 00000003', '00000000 00000000 00000000 00000000', 'cd'.repeat(512)))
  t.equal(
    (await client.take(48)).toString('hex'),
    hex(
      '21 80 00 00 00 000000', // SCSI response: completed, GOOD
      '00000000 00000000',
      'cafe0002 00000000',
      '00000003 00000012 00000091',
      '00000001 00000000 00000000', // one R2T was sent; no residual
    ).toString('hex'),
  )
  t.ok(device.bytes.subarray(1536, 2048).equals(Buffer.alloc(512, 0xcd)))

  t.comment('a command that fails')
  client.socket.write(hex('01 81 00 00 00 000000', '0001 0000 00000000', 'cafe0003 00000000', '00000012 00000004', 'e0', '00'.repeat(15)))
  t.equal(
    (await client.take(48 + 20)).toString('hex'),
    hex(
      '21 80 00 02 00 000014', // CHECK CONDITION
      '00000000 00000000',
      'cafe0003 00000000',
      '00000004 00000013 00000092',
      '00000000 00000000 00000000',
      '0012 7000 0500 0000 000a 0000 0000 2400 0000 0000', // length of sense data, sense data
    ).toString('hex'),
  )

  t.comment('a NOP-Out that wants its five bytes back')
  client.socket.write(hex('40 80 00 00 00 000005', '00000000 00000000', 'cafe0004 ffffffff', '00000013 00000005', '00'.repeat(16), '68656c6c6f 000000'))
  t.equal(
    (await client.take(56)).toString('hex'),
    hex('20 80 00 00 00 000005', '00000000 00000000', 'cafe0004 ffffffff', '00000005 00000013 00000092', '00'.repeat(12), '68656c6c6f 000000').toString('hex'),
  )

  t.comment('a SNACK, which gets its own header back')
  const snack = '10 80 00 00 00 000000 0000000000000000 cafe0002 ffffffff 00000000 00000005 00000000 00000000 00000000 00000001'
  client.socket.write(hex(snack))
  t.equal(
    (await client.take(96)).toString('hex'),
    hex('3f 80 03 00 00 000030', '00000000 00000000', 'ffffffff 00000000', '00000006 00000013 00000092', '00'.repeat(12), snack).toString('hex'),
  )

  t.comment('ABORT TASK of a task that is over')
  client.socket.write(hex('42 81 00 00 00 000000', '0001 0000 00000000', 'cafe0005 cafe0002', '00000013 00000007', '00000011 00000000 00000000 00000000'))
  t.equal(
    (await client.take(48)).toString('hex'),
    hex('22 80 01 00 00 000000', '00000000 00000000', 'cafe0005 00000000', '00000007 00000013 00000092', '00'.repeat(12)).toString('hex'),
  )

  t.comment('a text request')
  client.socket.write(hex('44 80 00 00 00 00000d', '00000000 00000000', 'cafe0006 ffffffff', '00000013 00000008', '00'.repeat(16), '53656e64546172676574733d00 000000'))
  const listing = text({TargetName: 'iqn.2019-10.io.longhorn:vol', TargetAddress: `127.0.0.1:${port},1`})
  const length = listing.length.toString(16).padStart(6, '0')
  t.equal(
    (await client.take(48 + Math.ceil(listing.length / 4) * 4)).toString('hex'),
    Buffer.concat([
      hex('24 80 00 00 00', length, '00000000 00000000', 'cafe0006 ffffffff', '00000008 00000013 00000092', '00'.repeat(12)),
      listing,
      Buffer.alloc((4 - (listing.length % 4)) % 4),
    ]).toString('hex'),
  )

  t.comment('a logout')
  client.socket.write(hex('46 80 00 00 00 000000', '00000000 00000000', 'cafe0007 00000000', '00000013 00000009', '00'.repeat(16)))
  t.equal(
    (await client.rest()).toString('hex'),
    hex('26 80 00 00 00 000000', '00000000 00000000', 'cafe0007 00000000', '00000009 00000013 00000092', '00'.repeat(12)).toString('hex'),
  )
  client.socket.destroy()
})

import t from 'tap'
import {byDependency, defaultParameters, negotiate, renegotiate, type Parameters} from '../../../../../src/engine/frontends/iscsi/transport/negotiation.js'

/** What a key is answered with, and what becomes of the parameters. */
function answer(key: string, value: string, session: 'normal' | 'discovery' = 'normal', parameters = defaultParameters()): [string | undefined, Parameters] {
  return [negotiate({key, value}, parameters, session), parameters]
}

t.test('each key, in a normal session', async t => {
  const table: [key: string, value: string, answer: string | undefined, changed?: Partial<Parameters>][] = [
    ['HeaderDigest', 'None', 'None'],
    ['HeaderDigest', 'CRC32C', 'CRC32C', {headerDigest: true}],
    ['HeaderDigest', 'None,CRC32C', 'None'],
    ['HeaderDigest', 'X-better,CRC32C,None', 'CRC32C', {headerDigest: true}],
    ['HeaderDigest', 'MD5', 'Reject'],
    ['DataDigest', 'CRC32C,None', 'CRC32C', {dataDigest: true}],
    ['DataDigest', '', 'Reject'],
    ['MaxConnections', '8', '1'],
    ['MaxConnections', '1', '1'],
    ['MaxConnections', '0', 'Reject'],
    ['MaxConnections', '65536', 'Reject'],
    ['InitialR2T', 'No', 'No', {initialR2T: false}],
    ['InitialR2T', 'Yes', 'Yes'],
    ['InitialR2T', 'yes', 'Reject'],
    ['ImmediateData', 'Yes', 'Yes'],
    ['ImmediateData', 'No', 'No', {immediateData: false}],
    ['MaxRecvDataSegmentLength', '512', undefined, {maxSendSegment: 512}],
    ['MaxRecvDataSegmentLength', '16777215', undefined, {maxSendSegment: 16777215}],
    ['MaxRecvDataSegmentLength', '0x10000', undefined, {maxSendSegment: 65536}],
    ['MaxBurstLength', '262144', '262144'],
    ['MaxBurstLength', '16776192', '1048576', {maxBurst: 1048576}],
    ['MaxBurstLength', '512', '512', {maxBurst: 512}],
    ['MaxBurstLength', '511', 'Reject'],
    ['MaxBurstLength', '16777216', 'Reject'],
    ['FirstBurstLength', '65536', '65536'],
    ['FirstBurstLength', '16776192', '262144', {firstBurst: 262144}],
    ['FirstBurstLength', '1e3', 'Reject'],
    ['DefaultTime2Wait', '2', '2'],
    ['DefaultTime2Wait', '3601', 'Reject'],
    ['DefaultTime2Retain', '20', '0'],
    ['MaxOutstandingR2T', '1', '1'],
    ['MaxOutstandingR2T', '100', '4', {maxOutstandingR2T: 4}],
    ['DataPDUInOrder', 'No', 'Yes'],
    ['DataSequenceInOrder', 'No', 'Yes'],
    ['DataSequenceInOrder', 'Maybe', 'Reject'],
    ['ErrorRecoveryLevel', '2', '0'],
    ['ErrorRecoveryLevel', '3', 'Reject'],
    ['TaskReporting', 'FastAbort,ResponseFence,RFC3720', 'RFC3720'],
    ['TaskReporting', 'FastAbort', 'Reject'],
    ['iSCSIProtocolLevel', '2', '1'],
    ['IFMarker', 'Yes', 'No'],
    ['OFMarker', 'No', 'No'],
    ['IFMarkInt', '2048', 'Reject'],
    ['OFMarkInt', '2048~4096', 'Reject'],
    ['InitiatorAlias', 'my host', undefined],
    ['X-com.example.speed', 'high', 'NotUnderstood'],
    ['Speed', 'high', 'NotUnderstood'],
    ['constructor', '1', 'NotUnderstood'],
    ['TargetAlias', 'NotUnderstood', undefined],
    ['TargetPortalGroupTag', 'NotUnderstood', undefined],
    ['MaxBurstLength', 'Irrelevant', undefined],
    ['MaxBurstLength', 'Reject', undefined],
  ]
  for (const [key, value, wanted, changed = {}] of table) {
    const [given, parameters] = answer(key, value)
    t.same([given, parameters], [wanted, {...defaultParameters(), ...changed}], `${key}=${value}`)
  }
})

t.test('a declaration that is none ends the login', async t => {
  for (const value of ['511', '16777216', '0', '-1', '1.5', '', 'Yes', '99999999999']) {
    t.throws(() => answer('MaxRecvDataSegmentLength', value), {code: 'LH_PROTOCOL'}, value)
  }
})

t.test('a discovery session has no use for what is about commands', async t => {
  for (const key of ['MaxConnections', 'InitialR2T', 'ImmediateData', 'MaxBurstLength', 'FirstBurstLength', 'MaxOutstandingR2T', 'DataPDUInOrder', 'DataSequenceInOrder', 'TaskReporting']) {
    t.equal(answer(key, '1', 'discovery')[0], 'Irrelevant', key)
  }
  t.equal(answer('HeaderDigest', 'CRC32C', 'discovery')[0], 'CRC32C')
  t.equal(answer('DefaultTime2Wait', '2', 'discovery')[0], '2')
  t.equal(answer('ErrorRecoveryLevel', '0', 'discovery')[0], '0')
})

t.test('FirstBurstLength depends on other keys, wherever they stand', async t => {
  const pairs = [
    {key: 'FirstBurstLength', value: '262144'},
    {key: 'MaxBurstLength', value: '65536'},
  ]
  const parameters = defaultParameters()
  t.same(byDependency(pairs).map(pair => negotiate(pair, parameters, 'normal')), ['65536', '65536'])
  t.equal(parameters.firstBurst, 65536)
  const solicited = {...defaultParameters(), immediateData: false}
  t.equal(answer('FirstBurstLength', '65536', 'normal', solicited)[0], 'Irrelevant', 'nothing is ever sent unasked')
})

t.test('in the full feature phase little can be changed', async t => {
  const parameters = defaultParameters()
  t.equal(renegotiate({key: 'MaxRecvDataSegmentLength', value: '4096'}, parameters, 'normal'), undefined)
  t.equal(parameters.maxSendSegment, 4096)
  for (const key of ['HeaderDigest', 'MaxBurstLength', 'ErrorRecoveryLevel', 'AuthMethod', 'CHAP_A', 'InitiatorName', 'SessionType']) {
    t.equal(renegotiate({key, value: '1'}, parameters, 'normal'), 'Reject', key)
  }
  t.equal(renegotiate({key: 'Speed', value: '1'}, parameters, 'normal'), 'NotUnderstood')
  t.equal(renegotiate({key: 'OFMarker', value: 'Yes'}, parameters, 'normal'), 'No')
  t.equal(renegotiate({key: 'HeaderDigest', value: 'NotUnderstood'}, parameters, 'normal'), undefined)
  t.same(parameters, {...defaultParameters(), maxSendSegment: 4096})
})

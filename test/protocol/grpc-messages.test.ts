import {spawnSync} from 'node:child_process'
import {fileURLToPath} from 'node:url'
import fc from 'fast-check'
import t from 'tap'
import {isKind} from '../../src/lib/errors.js'
import {decodeMessage, encodeMessage, methodPath, newMessage, type Codec, type ServiceDefinition} from '../../src/protocol/grpc/service-definition.js'
import * as common from '../../src/protocol/proto/generated/common.js'
import * as controller from '../../src/protocol/proto/generated/controller.js'
import {Empty} from '../../src/protocol/proto/generated/google/protobuf/empty.js'
import {HealthDefinition} from '../../src/protocol/proto/generated/health.js'
import * as replica from '../../src/protocol/proto/generated/replica.js'
import * as syncAgent from '../../src/protocol/proto/generated/sync-agent.js'
import {MESSAGES, METHODS} from './support/messages.js'
import {parseFields, sample, varint} from './support/wire.js'

/** Methods that upstream does not have; it never calls them. */
const OURS = new Set([
  'ReplicaSnapshotPrepare ReplicaSnapshotRequest ReplicaResponse',
  'ReplicaMembersSet ReplicaMembersSetRequest ReplicaResponse',
  'ReplicaRelease ReplicaReleaseRequest ReplicaResponse',
  'ReplicaJoin ReplicaJoinRequest ReplicaResponse',
  'ReplicaRebuild ReplicaRebuildRequest ReplicaResponse',
  'ReplicaRebuildProgress Empty RebuildProgress',
  'ReplicaRebuildFinish ReplicaRebuildFinishRequest ReplicaResponse',
  'ReplicaAdd ReplicaAddRequest ControllerReplica',
  'ReplicaRebuildList Empty ReplicaRebuildListResponse',
  'VolumeScrub Empty Empty',
  'VolumeScrubStatus Empty VolumeScrubStatusResponse',
  'VolumeScrubCancel Empty Empty',
  'VolumeRestore VolumeRestoreRequest Empty',
  'VolumeRestoreStatus Empty VolumeRestoreStatusResponse',
  'VolumeRestoreCancel Empty Empty',
  'BackupRestoreFinish BackupRestoreFinishRequest Empty',
  'BackupRestoreCancel Empty Empty',
  'VolumeHandOver VolumeHandOverRequest Empty',
  'LayerDigests LayerDigestsRequest LayerDigestsResponse',
  'LayerBlocks LayerBlocksRequest LayerBlocksResponse',
  'LayerRead LayerReadRequest LayerReadResponse',
  'LayerHeal LayerHealRequest Empty',
  'LayerHealBlocks LayerHealBlocksRequest LayerHealBlocksResponse',
  'LayerVerify LayerVerifyRequest LayerVerifyResponse',
])

const PROTO_FOLDER = fileURLToPath(new URL('../../src/protocol/proto/', import.meta.url))
const generated = {...common, ...controller, ...replica, ...syncAgent} as unknown as Readonly<Record<string, Codec<object>>>
const tables = Object.fromEntries(Object.entries(MESSAGES).map(([name, notation]) => [name, parseFields(notation)]))

function codecOf(name: string): Codec<object> {
  const codec = generated[name]
  if (codec === undefined) throw new Error(`no generated message ${name}`)
  return codec
}

t.test('every field has the number and the type that upstream gives it', async t => {
  for (const [name, fields] of Object.entries(tables)) {
    const {bytes, value} = sample(fields, tables)
    t.same(decodeMessage(codecOf(name), bytes, name), value, `${name} is read`)
    t.equal(encodeMessage(codecOf(name), value).toString('hex'), bytes.toString('hex'), `${name} is written`)
  }
})

t.test('every method has the name, the request and the response that upstream gives it', async t => {
  const definitions: readonly ServiceDefinition[] = [
    controller.ControllerServiceDefinition,
    replica.ReplicaServiceDefinition,
    syncAgent.SyncAgentServiceDefinition,
  ]
  const nameOf = new Map<unknown, string>([...Object.entries(generated).map(([name, codec]) => [codec, name] as const), [Empty, 'Empty']])
  for (const definition of definitions) {
    t.equal(definition.fullName, `ptypes.${definition.name}`)
    const methods = Object.values(definition.methods)
    const found = methods.map(({name, requestType, responseType}) => [name, nameOf.get(requestType), nameOf.get(responseType)].join(' '))
    t.same(found.filter(method => !OURS.has(method)).sort(), [...(METHODS[definition.name] ?? [])].sort(), definition.name)
    t.notOk(methods.some(({requestStream, responseStream}) => requestStream || responseStream), 'all are unary')
  }
  t.equal(methodPath(replica.ReplicaServiceDefinition, replica.ReplicaServiceDefinition.methods.replicaGet), '/ptypes.ReplicaService/ReplicaGet')
  t.equal(methodPath(HealthDefinition, HealthDefinition.methods.check), '/grpc.health.v1.Health/Check')
})

const withoutProtoc = spawnSync('protoc', ['--version']).status === 0 ? false : 'protoc is not installed'

t.test('protoc reads what we write, and we read what protoc writes', {skip: withoutProtoc}, async t => {
  const protoc = (action: string, input: Buffer | string): Buffer => {
    const files = ['common', 'controller', 'replica', 'sync-agent'].map(name => `${name}.proto`)
    const {stdout, stderr, status} = spawnSync('protoc', [action, '-I', PROTO_FOLDER, ...files], {input})
    if (status !== 0) throw new Error(`protoc ${action}: ${stderr.toString()}`)
    return stdout
  }
  for (const name of Object.keys(MESSAGES)) {
    const {value} = sample(tables[name] ?? [], tables)
    const text = protoc(`--decode=ptypes.${name}`, encodeMessage(codecOf(name), value))
    t.same(decodeMessage(codecOf(name), protoc(`--encode=ptypes.${name}`, text), name), value, name)
  }
})

t.test('numbers at the edge of 64 bits stay exact', async t => {
  // Nanoseconds since 1970 do not fit into a number.
  const lastModifyTime = 1_795_171_174_651_185_704n
  const bytes = encodeMessage(replica.Replica, newMessage(replica.Replica, {lastModifyTime, revisionCounter: -(2n ** 63n)}))
  const read = decodeMessage(replica.Replica, bytes, 'Replica')
  t.equal(read.lastModifyTime, lastModifyTime)
  t.equal(read.revisionCounter, -(2n ** 63n))
  t.throws(() => encodeMessage(replica.Replica, newMessage(replica.Replica, {revisionCounter: 2n ** 63n})), 'what does not fit is not cut')
})

t.test('names in a map cannot be confused with those of objects', async t => {
  const labels = new Map([
    ['__proto__', 'a'],
    ['constructor', 'b'],
    ['', 'c'],
  ])
  const bytes = encodeMessage(replica.DiskInfo, newMessage(replica.DiskInfo, {labels}))
  t.same(decodeMessage(replica.DiskInfo, bytes, 'DiskInfo').labels, labels)
})

t.test('fields of a newer peer are skipped, whatever their type', async t => {
  const unknown = [
    Buffer.concat([varint((900n << 3n) | 0n), varint(2n ** 64n - 1n)]),
    Buffer.concat([varint((901n << 3n) | 1n), Buffer.alloc(8, 0xff)]),
    Buffer.concat([varint((902n << 3n) | 2n), varint(3n), Buffer.from('abc')]),
    Buffer.concat([varint((903n << 3n) | 3n), varint((1n << 3n) | 0n), varint(1n), varint((903n << 3n) | 4n)]),
    Buffer.concat([varint((904n << 3n) | 5n), Buffer.alloc(4, 0xff)]),
    // A known number with a type it does not have.
    Buffer.concat([varint((1n << 3n) | 5n), Buffer.alloc(4, 0xff)]),
  ]
  for (const [name, fields] of Object.entries(tables)) {
    const {bytes, value} = sample(fields, tables)
    for (const extra of unknown) {
      t.same(decodeMessage(codecOf(name), Buffer.concat([extra, bytes, extra]), name), value, name)
    }
  }
  t.same(decodeMessage(Empty, Buffer.concat(unknown), 'Empty'), {})
})

t.test('bytes that are no message are refused, and the error says whose they were', async t => {
  const {bytes} = sample(tables.Replica ?? [], tables)
  const wrong = {
    'a cut string': Buffer.from([0x1a, 5, 0x61]),
    'a length of 4 GiB': Buffer.from([0x1a, 0xff, 0xff, 0xff, 0xff, 0x0f]),
    'a varint without an end': Buffer.alloc(20, 0xff),
    'a wire type that does not exist': Buffer.from([0x0e]),
    'a tag of zero before the end': Buffer.concat([bytes, Buffer.from([0, 1, 2, 3])]),
    'the end of a group that never began': Buffer.concat([bytes, Buffer.from([0x1c, 0])]),
    'groups inside groups': Buffer.alloc(100_000, 0x1b),
  }
  for (const [what, input] of Object.entries(wrong)) {
    const expected = {code: 'LH_PROTOCOL', message: /^response of ReplicaGet is malformed: /}
    t.throws(() => decodeMessage(replica.Replica, input, 'response of ReplicaGet'), expected, what)
  }
  for (let end = 1; end < bytes.length; end += 1) {
    try {
      decodeMessage(replica.Replica, bytes.subarray(0, end), 'Replica')
    } catch (error) {
      t.match(error, {code: 'LH_PROTOCOL'}, `cut at ${end}`)
    }
  }
})

t.test('any bytes are either a message or a PROTOCOL error', async t => {
  fc.assert(
    fc.property(fc.constantFrom(...Object.keys(MESSAGES)), fc.uint8Array({maxLength: 64}), (name, bytes) => {
      try {
        decodeMessage(codecOf(name), bytes, name)
      } catch (error) {
        if (!isKind(error, 'PROTOCOL')) throw error
      }
    }),
    {numRuns: 2000},
  )
})

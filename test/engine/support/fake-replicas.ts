import type {Test} from 'tap'
import {openLog, type Log} from '../../../src/lib/log.js'
import {ALL_FEATURES, FRAME} from '../../../src/protocol/frame.js'
import {FrameServerConnection} from '../../../src/protocol/frame-server.js'
import {ReplicaLink, type ReplicaMode} from '../../../src/engine/replica-link.js'
import {Volume} from '../../../src/engine/volume.js'
import {FramePeer} from '../../support/frames.js'
import {nodeSocket, socketPair} from '../../support/sockets.js'
import {MemoryDevice} from './memory-device.js'

/** A replica's data connection with a device in memory behind it. */
export interface FakeReplica {
  readonly link: ReplicaLink
  readonly device: MemoryDevice
  readonly server: FrameServerConnection
}

export interface FakeVolume {
  readonly volume: Volume
  readonly replicas: readonly FakeReplica[]
  /** What has been dropped, and why. */
  readonly dropped: {address: string; reason: Error}[]
  /** What has been logged, as objects. */
  readonly lines: Record<string, unknown>[]
}

export interface FakeOptions {
  readonly replicas?: number
  readonly sizeBytes?: number
  /** Of each replica; all of ours when it is left out. */
  readonly features?: readonly (readonly string[])[]
  readonly hosts?: readonly string[]
  readonly modes?: readonly ReplicaMode[]
  readonly timeoutMs?: number
  readonly writeThrough?: boolean
}

/** A volume without replicas. */
export function emptyVolume(t: Test, options: FakeOptions = {}): Omit<FakeVolume, 'replicas'> {
  const {sizeBytes = 1024 * 1024, timeoutMs = 60_000, writeThrough = false} = options
  const {log, lines} = memoryLog()
  const volume = new Volume({name: 'vol', sizeBytes, writeThrough, replicaTimeoutMs: timeoutMs, log})
  const dropped: {address: string; reason: Error}[] = []
  volume.onReplicaFailed = (link, reason) => dropped.push({address: link.address, reason})
  t.teardown(() => volume.close())
  return {volume, dropped, lines}
}

export function fakeVolume(t: Test, options: FakeOptions = {}): FakeVolume {
  const {replicas: count = 2, sizeBytes = 1024 * 1024, features = [], hosts = [], modes = []} = options
  const {volume, ...rest} = emptyVolume(t, options)
  const replicas = Array.from({length: count}, (_, index) => addFake(t, volume, sizeBytes, features[index] ?? ALL_FEATURES, hosts[index], modes[index]))
  return {volume, replicas, ...rest}
}

export function addFake(t: Test, volume: Volume, sizeBytes: number, features = ALL_FEATURES, host = '127.0.0.1', mode: ReplicaMode = 'RW'): FakeReplica {
  const [near, far] = socketPair()
  const device = new MemoryDevice(sizeBytes)
  const server = new FrameServerConnection(far, {device, noSpaceType: FRAME.ERROR, peer: 'engine', onClose: () => undefined})
  t.teardown(() => server.close())
  return {link: link(volume, near, features, host, mode), device, server}
}

/** A replica whose answers the test makes up. */
export function addHandMade(t: Test, volume: Volume, features: readonly string[] = ALL_FEATURES): {link: ReplicaLink; peer: FramePeer} {
  const [near, far] = socketPair()
  const peer = new FramePeer(nodeSocket(far))
  t.teardown(() => peer.socket.destroy())
  return {link: link(volume, near, features, '127.0.0.1'), peer}
}

function link(volume: Volume, fd: number, features: readonly string[], host: string, mode: ReplicaMode = 'RW'): ReplicaLink {
  const address = `tcp://${host}:${10_000 + volume.replicas.length * 10}`
  const made = new ReplicaLink(address, volume.nextBit(), features, {fd, host, timeoutMs: 60_000}, volume)
  made.mode = mode
  volume.addReplica(made)
  return made
}

/** A log that tests can read. */
export function memoryLog(): {log: Log; lines: Record<string, unknown>[]} {
  const lines: Record<string, unknown>[] = []
  const log = openLog({write: (line: string) => void lines.push(JSON.parse(line) as Record<string, unknown>)}, {LONGHORN_LOG_LEVEL: 'info'})
  return {log, lines}
}

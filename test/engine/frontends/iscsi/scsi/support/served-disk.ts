import {pino} from 'pino'
import {ScsiDeviceServer} from '../../../../../../src/engine/frontends/iscsi/scsi/device-server.js'
import type {ReservationStore, SavedState} from '../../../../../../src/engine/frontends/iscsi/scsi/reservations/saved-state.js'
import type {Nexus, TaskAttribute} from '../../../../../../src/engine/frontends/iscsi/scsi-task.js'
import type {BlockDevice} from '../../../../../../src/protocol/block-device.js'
import {MemoryDevice} from '../../../../support/memory-device.js'
import {FakeTask, type Result} from './fake-task.js'

export const GOOD = 0x00
export const CHECK = 0x02
export const BUSY = 0x08
export const CONFLICT = 0x18

export const MiB = 1024 * 1024

/** Keeps the state in memory, and can be told to fail. */
export class MemoryStore implements ReservationStore {
  saved: SavedState | undefined
  saves = 0
  broken = false

  load(): Promise<SavedState | undefined> {
    return Promise.resolve(this.saved)
  }

  save(state: SavedState): Promise<void> {
    if (this.broken) return Promise.reject(new Error('the disk of the engine is full'))
    this.saves++
    this.saved = state
    return Promise.resolve()
  }
}

export interface Send {
  readonly lun?: number
  readonly out?: Buffer
  /** Bytes that the initiator takes. */
  readonly in?: number
  readonly attribute?: TaskAttribute
  readonly pieceBytes?: number
  readonly late?: boolean
}

let lastId = 0

/** A session with the target. */
export class Initiator {
  readonly nexus: Nexus
  /** Commands that have not been finished. */
  readonly open = new Set<FakeTask>()

  constructor(
    readonly server: ScsiDeviceServer,
    readonly name: string,
  ) {
    const isid = Buffer.from([0x80, 0x12, 0x34, 0x56, 0x00, name.charCodeAt(0)])
    this.nexus = {initiatorName: `iqn.2026-01.test:${name}`, isid, id: ++lastId, peer: `${name} from nowhere`}
    server.nexusAdded(this.nexus)
  }

  /** Starts a command given in hex. */
  start(cdb: string | Buffer, send: Send = {}): FakeTask {
    const task = new FakeTask({
      nexus: this.nexus,
      lun: send.lun ?? 1,
      cdb: typeof cdb === 'string' ? hex(cdb) : cdb,
      out: send.out ?? Buffer.alloc(0),
      expectedIn: send.in ?? 65536,
      attribute: send.attribute ?? 'simple',
      pieceBytes: send.pieceBytes ?? 65536,
      late: send.late ?? false,
    })
    this.open.add(task)
    void task.result.then(() => this.open.delete(task))
    this.server.dispatch(task)
    return task
  }

  send(cdb: string | Buffer, send: Send = {}): Promise<Result> {
    return this.start(cdb, send).result
  }

  /** Hears what there is to be told, in the order told. */
  async attentions(lun = 1): Promise<string[]> {
    const heard: string[] = []
    for (let count = 0; count < 20; count++) {
      const {status, sense} = await this.send('00 00 00 00 00 00', {lun})
      if (status !== CHECK || !sense.startsWith('6/')) return heard
      heard.push(sense)
    }
    throw new Error('it does not end')
  }

  leave(): void {
    for (const task of this.open) task.abort()
    this.server.nexusLost(this.nexus)
  }
}

export interface Served {
  readonly server: ScsiDeviceServer
  readonly device: MemoryDevice
  readonly store: MemoryStore
  /** Has heard that there was a reset. */
  readonly a: Initiator
  join(name: string): Promise<Initiator>
}

/** A volume in memory, with one initiator. */
export async function serve(sizeBytes: number = 16 * MiB, capacityBytes: number = sizeBytes, store = new MemoryStore()): Promise<Served> {
  const device = new MemoryDevice(sizeBytes, capacityBytes)
  return {device, store, ...(await serveDevice(device, store))}
}

export async function serveDevice(device: BlockDevice, store: ReservationStore | undefined): Promise<Pick<Served, 'server' | 'a' | 'join'>> {
  const server = await ScsiDeviceServer.open({volume: 'vol', target: 'iqn.2019-10.io.longhorn:vol', device, store, log: pino({level: 'silent'})})
  const initiators = new Set<Initiator>()
  server.abortCommands = async (nexus, lun, except) => {
    const tasks = [...initiators].filter(({nexus: {id}}) => id === nexus.id).flatMap(({open}) => [...open])
    const victims = tasks.filter(task => task.lun === lun && task !== except)
    for (const task of victims) task.abort()
    await Promise.all(victims.map(({result}) => result))
  }
  const join = async (name: string): Promise<Initiator> => {
    const initiator = new Initiator(server, name)
    initiators.add(initiator)
    await initiator.attentions()
    return initiator
  }
  return {server, join, a: await join('a')}
}

export function hex(...parts: string[]): Buffer {
  return Buffer.from(parts.join('').replaceAll(/\s/g, ''), 'hex')
}

/** A number in so many bytes, as hex. */
export function be(value: number | bigint, bytes: number): string {
  return BigInt(value).toString(16).padStart(bytes * 2, '0')
}

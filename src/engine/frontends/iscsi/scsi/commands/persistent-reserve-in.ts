// PERSISTENT RESERVE IN (SPC-4, 6.15). All answers but the capabilities begin with: 0 generation (4)  4 length of the rest (4).
import type {ScsiTask} from '../../scsi-task.js'
import {ReservationConflict} from '../check-condition.js'
import type {Disk} from '../disk.js'
import {nameString, RELATIVE_PORT} from '../pages/designators.js'
import {isHolder, NO_KEY, TYPES, type Registration, type ReservationState} from '../reservations/reservation-state.js'
import {answer} from './answer.js'

const CRH = 0x10
const PTPL_C = 0x01
const TMV = 0x80
/** ALLOW COMMANDS 001b: TEST UNIT READY always, MODE SENSE and the like where reading is allowed. */
const ALLOW_COMMANDS = 0x10
const PTPL_A = 0x01
/** All six types. */
const TYPE_MASK = [0xea, 0x01]

const R_HOLDER = 0x01
/** Of a TransportID: iSCSI, and the form with the ISID. */
const ISCSI_PORT = 0x45
const TRANSPORT_ID_HEADER = 4
const LEAST_TRANSPORT_ID = 24

export function readKeys(disk: Disk, task: ScsiTask): number {
  const {state} = visible(disk)
  return answer(task, list(state, state.registrations.map(({key}) => Buffer.from(key, 'hex'))), allocationLength(task))
}

export function readReservation(disk: Disk, task: ScsiTask): number {
  const {state} = visible(disk)
  return answer(task, list(state, reservationOf(state)), allocationLength(task))
}

export function readFullStatus(disk: Disk, task: ScsiTask): number {
  const {state} = visible(disk)
  return answer(task, list(state, state.registrations.map(registration => fullStatus(state, registration))), allocationLength(task))
}

export function reportCapabilities(disk: Disk, task: ScsiTask): number {
  const {state} = visible(disk)
  const data = Buffer.from([0, 8, CRH | (disk.keeper.able ? PTPL_C : 0), TMV | ALLOW_COMMANDS | (state.kept ? PTPL_A : 0), ...TYPE_MASK, 0, 0])
  return answer(task, data, allocationLength(task))
}

/** 0 key (8)  13 scope|type */
function reservationOf(state: ReservationState): Buffer[] {
  const {reservation, registrations} = state
  if (reservation === undefined) return []
  const forAll = TYPES.get(reservation.type)!.all
  const key = forAll ? NO_KEY : (registrations.find(({port}) => port === reservation.holder)?.key ?? NO_KEY)
  const descriptor = Buffer.alloc(16)
  descriptor.write(key, 'hex')
  descriptor[13] = reservation.type
  return [descriptor]
}

/** 0 key (8)  12 R_HOLDER  13 scope|type  18 relative target port (2)  20 length of the TransportID (4) */
function fullStatus(state: ReservationState, {port, key}: Registration): Buffer {
  const descriptor = Buffer.alloc(24)
  descriptor.write(key, 'hex')
  if (isHolder(state, port)) {
    descriptor[12] = R_HOLDER
    descriptor[13] = state.reservation!.type
  }
  descriptor.writeUInt16BE(RELATIVE_PORT, 18)
  const transportId = transportIdOf(port)
  descriptor.writeUInt32BE(transportId.length, 20)
  return Buffer.concat([descriptor, transportId])
}

/** 0 format|protocol  2 length of the name (2)  4 name */
function transportIdOf(port: string): Buffer {
  const name = nameString(port)
  const id = Buffer.alloc(Math.max(LEAST_TRANSPORT_ID, TRANSPORT_ID_HEADER + name.length))
  id[0] = ISCSI_PORT
  id.writeUInt16BE(id.length - TRANSPORT_ID_HEADER, 2)
  name.copy(id, TRANSPORT_ID_HEADER)
  return id
}

function list({generation}: ReservationState, parts: readonly Buffer[]): Buffer {
  const data = Buffer.concat([Buffer.alloc(8), ...parts])
  data.writeUInt32BE(generation, 0)
  data.writeUInt32BE(data.length - 8, 4)
  return data
}

function visible({reservations}: Disk): {readonly state: ReservationState} {
  if (reservations.heldOldStyle) throw new ReservationConflict()
  return reservations
}

function allocationLength({cdb}: ScsiTask): number {
  return cdb.readUInt16BE(7)
}

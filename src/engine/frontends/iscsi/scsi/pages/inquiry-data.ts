// Standard INQUIRY data (SPC-4, 6.6.2):
//   0 qualifier|device type  2 version  3 HISUP|format  4 additional length  5 TPGS|3PC  7 CMDQUE
//   8 vendor (8)  16 product (16)  32 revision (4)  58 version descriptors (8 of 2)
import type {Identity} from '../identity.js'
import {PRODUCT, REVISION, VENDOR} from '../identity.js'
import {controllerDesignators, targetDesignators} from './designators.js'

const BYTES = 96
const SPC_4 = 0x06
const RESPONSE_FORMAT = 0x02
const IMPLICIT_ALUA = 0x10
const THIRD_PARTY_COPY = 0x08
const COMMAND_QUEUE = 0x02

export const DEVICE_TYPE = {DISK: 0x00, STORAGE_ARRAY: 0x0c, /** Not connected, and no telling what it would be. */ NONE: 0x7f} as const

/** SAM-5, iSCSI, SPC-4, SBC-3; each without claim of a revision. */
const DISK_STANDARDS = [0x00a0, 0x0960, 0x0460, 0x04c0]
const CONTROLLER_STANDARDS = [0x00a0, 0x0960, 0x0460]

/** What a unit answers to INQUIRY. */
export interface InquiryData {
  readonly deviceType: number
  readonly standard: Buffer
  /** Codes of the vital product data pages, ascending, without page 00h, which lists them. */
  readonly pages: ReadonlyMap<number, () => Buffer>
}

export function diskInquiry(): Buffer {
  const data = standard(DEVICE_TYPE.DISK, DISK_STANDARDS)
  data[5] = IMPLICIT_ALUA | THIRD_PARTY_COPY
  return data
}

export function controllerInquiry(identity: Identity): InquiryData {
  return {
    deviceType: DEVICE_TYPE.STORAGE_ARRAY,
    standard: standard(DEVICE_TYPE.STORAGE_ARRAY, CONTROLLER_STANDARDS),
    pages: new Map([[0x83, () => Buffer.concat([...controllerDesignators(identity), ...targetDesignators(identity)])]]),
  }
}

/** For a logical unit number behind which there is nothing. */
export function nobodyInquiry(): InquiryData {
  return {deviceType: DEVICE_TYPE.NONE, standard: standard(DEVICE_TYPE.NONE, []), pages: new Map()}
}

function standard(deviceType: number, standards: readonly number[]): Buffer {
  const data = Buffer.alloc(BYTES)
  data[0] = deviceType
  data[2] = SPC_4
  data[3] = RESPONSE_FORMAT
  data[4] = BYTES - 5
  data[7] = COMMAND_QUEUE
  data.write(VENDOR.padEnd(8), 8, 'latin1')
  data.write(PRODUCT.padEnd(16), 16, 'latin1')
  data.write(REVISION, 32, 'latin1')
  standards.forEach((code, index) => data.writeUInt16BE(code, 58 + 2 * index))
  return data
}

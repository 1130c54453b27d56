// Designation descriptors of the device identification page (SPC-4, 7.8.5):
//   0 protocol|code set  1 PIV|association|type  3 length  4 designator
import type {Identity} from '../identity.js'
import {VENDOR} from '../identity.js'

const CODE_SET = {BINARY: 1, ASCII: 2, UTF8: 3} as const
const ASSOCIATION = {UNIT: 0x00, PORT: 0x10, TARGET: 0x20} as const
const TYPE = {T10_VENDOR: 0x1, NAA: 0x3, RELATIVE_PORT: 0x4, PORT_GROUP: 0x5, SCSI_NAME: 0x8} as const

/** iSCSI's protocol identifier, and the bit which says that it is valid. */
const ISCSI = 0x50
const PIV = 0x80

/** There is one target port, in one group. */
export const RELATIVE_PORT = 1
export const PORT_GROUP = 1
/** The target portal group tag that names the port. */
const PORTAL_GROUP_TAG = '0x0001'

/** What names the logical unit: first the one that programs prefer. */
export function unitDesignators({naa, volume}: Identity): Buffer[] {
  return [
    descriptor(CODE_SET.BINARY, ASSOCIATION.UNIT | TYPE.NAA, naa),
    descriptor(CODE_SET.ASCII, ASSOCIATION.UNIT | TYPE.T10_VENDOR, Buffer.from(`${VENDOR}${volume}`)),
    descriptor(CODE_SET.UTF8, ASSOCIATION.UNIT | TYPE.SCSI_NAME, nameString(`naa.${naa.toString('hex').toUpperCase()}`)),
  ]
}

export function controllerDesignators({controllerNaa}: Identity): Buffer[] {
  return [descriptor(CODE_SET.BINARY, ASSOCIATION.UNIT | TYPE.NAA, controllerNaa)]
}

/** What names the port and the device behind which the logical unit is. */
export function targetDesignators({target}: Identity): Buffer[] {
  return [
    descriptor(ISCSI | CODE_SET.BINARY, PIV | ASSOCIATION.PORT | TYPE.RELATIVE_PORT, Buffer.from([0, 0, 0, RELATIVE_PORT])),
    descriptor(ISCSI | CODE_SET.BINARY, PIV | ASSOCIATION.PORT | TYPE.PORT_GROUP, Buffer.from([0, 0, 0, PORT_GROUP])),
    descriptor(ISCSI | CODE_SET.UTF8, PIV | ASSOCIATION.PORT | TYPE.SCSI_NAME, nameString(`${target},t,${PORTAL_GROUP_TAG}`)),
    descriptor(ISCSI | CODE_SET.UTF8, PIV | ASSOCIATION.TARGET | TYPE.SCSI_NAME, nameString(target)),
  ]
}

/** Names are null-terminated and padded to four bytes. */
export function nameString(text: string): Buffer {
  const bytes = Buffer.from(text)
  return Buffer.concat([bytes, Buffer.alloc(4 - (bytes.length % 4))])
}

function descriptor(codeSet: number, kind: number, designator: Buffer): Buffer {
  return Buffer.concat([Buffer.from([codeSet, kind, 0, designator.length]), designator])
}

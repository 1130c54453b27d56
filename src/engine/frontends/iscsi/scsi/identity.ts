import {createHash} from 'node:crypto'

/** INQUIRY's vendor identification, 8 bytes. */
export const VENDOR = 'LONGHORN'
/** INQUIRY's product identification, at most 16 bytes. */
export const PRODUCT = 'VOLUME'
/** INQUIRY's product revision level, 4 bytes: of what initiators see, not of this program. */
export const REVISION = '0001'

/**
 * Who a volume is to its initiators. All of it follows from the volume's name, so that a volume is the same disk after a
 * restart and on another node, and multipath software can tell.
 */
export interface Identity {
  readonly volume: string
  /** Of the iSCSI target: `iqn.2019-10.io.longhorn:VOL`. */
  readonly target: string
  /** 32 hex digits. */
  readonly serial: string
  /** NAA designator, locally assigned: 3h and 60 bits. */
  readonly naa: Buffer
  /** That of the controller, LUN 0. */
  readonly controllerNaa: Buffer
}

export function identityOf(volume: string, target: string): Identity {
  return {
    volume,
    target,
    serial: digest(volume).subarray(0, 16).toString('hex'),
    naa: locallyAssigned(digest(volume)),
    controllerNaa: locallyAssigned(digest(`controller of ${volume}`)),
  }
}

function digest(text: string): Buffer {
  return createHash('sha256').update(`longhorn volume ${text}`).digest()
}

function locallyAssigned(from: Buffer): Buffer {
  const naa = Buffer.from(from.subarray(16, 24))
  naa[0] = 0x30 | (naa[0]! & 0x0f)
  return naa
}

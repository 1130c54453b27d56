// What the transport itself has to report of a command, RFC 7143 section 11.4.7.2: fixed format sense data,
//   0 u8 0x70  2 u8 sense key  7 u8 bytes that follow  12 u8 additional sense code  13 u8 its qualifier
const ABORTED_COMMAND = 0x0b
const ILLEGAL_REQUEST = 0x05

export const SENSE = {
  /** Data came that nobody asked for: more than FirstBurstLength, or where InitialR2T or ImmediateData forbid it. */
  UNEXPECTED_DATA: fixedSense(ABORTED_COMMAND, 0x0c, 0x0c),
  /** More or less than an R2T asked for. */
  WRONG_AMOUNT: fixedSense(ABORTED_COMMAND, 0x0c, 0x0d),
  /** A digest did not match, or a PDU is missing. */
  CRC_ERROR: fixedSense(ABORTED_COMMAND, 0x47, 0x05),
  /** A command that moves data both ways, or whose header makes no sense. */
  INVALID_COMMAND_FIELD: fixedSense(ILLEGAL_REQUEST, 0x0e, 0x03),
} as const

function fixedSense(key: number, code: number, qualifier: number): Buffer {
  const sense = Buffer.alloc(18)
  sense[0] = 0x70
  sense[2] = key
  sense[7] = sense.length - 8
  sense[12] = code
  sense[13] = qualifier
  return sense
}

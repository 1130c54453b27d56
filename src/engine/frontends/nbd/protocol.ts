// Numbers of the NBD protocol, as doc/proto.md of github.com/NetworkBlockDevice/nbd gives them. All integers on the
// wire are big-endian. The layout of each message stands beside the code that reads or writes it.

// Magic numbers of 64 bits are kept as their two halves: a number cannot hold them, and nothing is ever computed.

/** First thing a server says: `NBDMAGIC`. */
export const GREETING_MAGIC = {high: 0x4e42444d, low: 0x41474943} as const
/** `IHAVEOPT`: the second thing it says, and the start of each option of a client. */
export const OPTION_MAGIC = {high: 0x49484156, low: 0x454f5054} as const
/** Start of each reply to an option. */
export const OPTION_REPLY_MAGIC = {high: 0x0003e889, low: 0x045565a9} as const

export const REQUEST_MAGIC = 0x25609513
export const SIMPLE_REPLY_MAGIC = 0x67446698
export const CHUNK_MAGIC = 0x668e33ef

/** Handshake flags; a client answers with the same bits (and no others). */
export const HANDSHAKE = {FIXED_NEWSTYLE: 1 << 0, NO_ZEROES: 1 << 1} as const

export const OPTION = {
  EXPORT_NAME: 1,
  ABORT: 2,
  LIST: 3,
  STARTTLS: 5,
  INFO: 6,
  GO: 7,
  STRUCTURED_REPLY: 8,
  LIST_META_CONTEXT: 9,
  SET_META_CONTEXT: 10,
} as const

/** Types of replies to options; those from 2^31 on are errors, whose data is a text for people. */
export const OPTION_REPLY = {
  ACK: 1,
  SERVER: 2,
  INFO: 3,
  META_CONTEXT: 4,
  ERR_UNSUP: 0x8000_0001,
  ERR_INVALID: 0x8000_0003,
  ERR_UNKNOWN: 0x8000_0006,
  ERR_TOO_BIG: 0x8000_0009,
} as const

/** What INFO and GO can tell of an export. */
export const INFO = {EXPORT: 0, NAME: 1, DESCRIPTION: 2, BLOCK_SIZE: 3} as const

export const TRANSMISSION = {
  HAS_FLAGS: 1 << 0,
  SEND_FLUSH: 1 << 2,
  SEND_FUA: 1 << 3,
  SEND_TRIM: 1 << 5,
  SEND_WRITE_ZEROES: 1 << 6,
  SEND_DF: 1 << 7,
  CAN_MULTI_CONN: 1 << 8,
} as const

export const COMMAND = {READ: 0, WRITE: 1, DISC: 2, FLUSH: 3, TRIM: 4, WRITE_ZEROES: 6, BLOCK_STATUS: 7} as const

export const COMMAND_FLAG = {FUA: 1 << 0, NO_HOLE: 1 << 1, DF: 1 << 2, REQ_ONE: 1 << 3} as const

/** Set in the flags of a reply's last chunk. */
export const CHUNK_DONE = 1 << 0

export const CHUNK = {NONE: 0, OFFSET_DATA: 1, BLOCK_STATUS: 5, ERROR: 0x8001} as const

/** Bits of `base:allocation`. */
export const STATE = {HOLE: 1 << 0, ZERO: 1 << 1} as const

/** `error` of a reply: Linux errno values by the protocol's decree, whatever the server runs on. */
export const NBD_ERROR = {
  OK: 0,
  EIO: 5,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ESHUTDOWN: 108,
} as const

/** The longest string the protocol allows. */
export const MAX_STRING_BYTES = 4096
/** The most data that one READ or WRITE may move; the protocol's own default. */
export const MAX_PAYLOAD_BYTES = 32 * 1024 * 1024
/** The unit in which the volume keeps its data: other requests work as well, at the price of reading before writing. */
export const PREFERRED_BLOCK_BYTES = 4096

import {LonghornError} from '../../../lib/errors.js'
import type {ByteStream} from '../../../lib/net/byte-stream.js'
import type {SendQueue} from '../../../lib/net/send-queue.js'
import {parseInfoRequest, parseMetaContextRequest, parseName, type InfoRequest} from './option-data.js'
import {
  blockSizeData,
  exportData,
  metaContextData,
  serverData,
  textData,
  writeExport,
  writeGreeting,
  writeOptionError,
  writeOptionReply,
} from './option-replies.js'
import {HANDSHAKE, INFO, OPTION, OPTION_MAGIC, OPTION_REPLY, TRANSMISSION} from './protocol.js'

/** The only metadata context there is: what is allocated. */
const ALLOCATION = 'base:allocation'
/** The number that BLOCK_STATUS replies name it by. */
export const ALLOCATION_ID = 1

/** Longer option data is refused; it is skipped as it arrives, so it takes no memory. */
const MAX_OPTION_BYTES = 64 * 1024
/** Clients need about five. */
const MAX_OPTIONS = 100

/** The volume as its clients see it. */
export interface Export {
  readonly name: string
  /** Read anew by each handshake, as volumes grow. */
  readonly sizeBytes: number
}

/** What a client and we have agreed on. */
export interface Agreement {
  /** Replies are chunks; without it they are "simple" and cannot explain an error. */
  readonly structured: boolean
  /** The client may ask for BLOCK_STATUS. */
  readonly blockStatus: boolean
}

/** How far a handshake has come, as plain data. */
export interface HandshakeState {
  readonly clientFlags?: number | undefined
  readonly optionsSeen: number
  readonly skipping?: {readonly option: number; readonly left: number} | undefined
  readonly structured: boolean
  readonly contextFor?: string | undefined
}

/**
 * One client's way to the transmission phase, "fixed newstyle" only:
 *
 *   greeting → client flags → option, reply, option, reply … until GO, EXPORT_NAME or ABORT
 *
 * An option that cannot be had gets an error reply and the client goes on; a client that breaks the rules is cut off.
 */
export class Handshake {
  #clientFlags: number | undefined
  #optionsSeen = 0
  /** An option whose data is too long, while its bytes are being skipped. */
  #skipping: {option: number; left: number} | undefined
  #structured = false
  /** The export name that metadata contexts were last chosen for; they count only if the same name is used in the end. */
  #contextFor: string | undefined

  constructor(readonly exported: Export) {}

  /** What another process needs to go on. */
  get state(): HandshakeState {
    return {clientFlags: this.#clientFlags, optionsSeen: this.#optionsSeen, skipping: this.#skipping, structured: this.#structured, contextFor: this.#contextFor}
  }

  /** Goes on where another process has stopped. */
  goOn({clientFlags, optionsSeen, skipping, structured, contextFor}: HandshakeState): void {
    this.#clientFlags = clientFlags
    this.#optionsSeen = optionsSeen
    this.#skipping = skipping && {...skipping}
    this.#structured = structured
    this.#contextFor = contextFor
  }

  greet(stream: ByteStream): void {
    writeGreeting(stream.output)
    stream.flushSoon()
  }

  /**
   * Handles what has arrived. Gives the agreement once the client has chosen the export: input behind that belongs to
   * the transmission phase. Undefined when more is needed or the client has said goodbye. Throws PROTOCOL.
   */
  handleInput(stream: ByteStream): Agreement | undefined {
    if (this.#clientFlags === undefined && !this.#takeClientFlags(stream)) return undefined
    for (;;) {
      if (this.#skipping !== undefined && !this.#skip(stream, this.#skipping)) return undefined
      const option = this.#nextOption(stream)
      if (option === undefined) return undefined
      stream.flushSoon()
      if (option.code === OPTION.ABORT) {
        writeOptionReply(stream.output, option.code, OPTION_REPLY.ACK)
        stream.endAfterFlush()
        return undefined
      }
      const chosen = this.#answer(stream.output, option)
      if (chosen !== undefined) return {structured: this.#structured, blockStatus: this.#contextFor === chosen}
    }
  }

  /** 0 u32 flags. */
  #takeClientFlags(stream: ByteStream): boolean {
    if (stream.available < 4) return false
    const flags = stream.input.readUInt32BE(stream.start)
    if ((flags & ~(HANDSHAKE.FIXED_NEWSTYLE | HANDSHAKE.NO_ZEROES)) !== 0) {
      throw new LonghornError('PROTOCOL', `the client sets handshake flags 0x${flags.toString(16)}, which nobody offered`)
    }
    stream.start += 4
    this.#clientFlags = flags
    return true
  }

  /** 0 u64 IHAVEOPT  8 u32 option  12 u32 length of data  16 data. Undefined until all of it is here. */
  #nextOption(stream: ByteStream): OptionRequest | undefined {
    if (stream.available < 16) return undefined
    const {input, start} = stream
    if (input.readUInt32BE(start) !== OPTION_MAGIC.high || input.readUInt32BE(start + 4) !== OPTION_MAGIC.low) {
      throw new LonghornError('PROTOCOL', 'the client does not speak NBD: an option without its magic number')
    }
    const code = input.readUInt32BE(start + 8)
    const length = input.readUInt32BE(start + 12)
    if (length > MAX_OPTION_BYTES) {
      if (code === OPTION.EXPORT_NAME) throw new LonghornError('PROTOCOL', `the client asks for an export with a name of ${length} bytes`)
      this.#countOption()
      stream.start += 16
      this.#skipping = {option: code, left: length}
      return this.#skip(stream, this.#skipping) ? this.#nextOption(stream) : undefined
    }
    if (stream.available < 16 + length) return undefined
    this.#countOption()
    stream.start += 16 + length
    return {code, data: input.subarray(start + 16, start + 16 + length)}
  }

  #countOption(): void {
    if (++this.#optionsSeen > MAX_OPTIONS) throw new LonghornError('PROTOCOL', `the client sent ${MAX_OPTIONS} options and chose no export`)
    if ((this.#clientFlags! & HANDSHAKE.FIXED_NEWSTYLE) === 0 && this.#optionsSeen > 1) {
      throw new LonghornError('PROTOCOL', 'the client haggles, but did not say that it speaks fixed newstyle')
    }
  }

  /** True when all has been skipped and the refusal has been written. */
  #skip(stream: ByteStream, skipping: {option: number; left: number}): boolean {
    const count = Math.min(skipping.left, stream.available)
    stream.start += count
    skipping.left -= count
    if (skipping.left > 0) return false
    this.#skipping = undefined
    const known = Object.values(OPTION).some(code => code === skipping.option)
    const type = known ? OPTION_REPLY.ERR_TOO_BIG : OPTION_REPLY.ERR_UNSUP
    writeOptionError(stream.output, skipping.option, type, `option data is limited to ${MAX_OPTION_BYTES} bytes`)
    stream.flushSoon()
    return true
  }

  /** The export's name when that was the client's choice. What is malformed within its own bounds is refused and nothing more. */
  #answer(output: SendQueue, option: OptionRequest): string | undefined {
    if (option.code === OPTION.EXPORT_NAME) return this.#chooseByName(output, option.data)
    try {
      return this.#answerFixed(output, option)
    } catch (error) {
      if (!(error instanceof LonghornError)) throw error
      writeOptionError(output, option.code, OPTION_REPLY.ERR_INVALID, error.message)
      return undefined
    }
  }

  #answerFixed(output: SendQueue, {code, data}: OptionRequest): string | undefined {
    switch (code) {
      case OPTION.LIST:
        refuseData(data)
        writeOptionReply(output, code, OPTION_REPLY.SERVER, serverData(this.exported.name))
        writeOptionReply(output, code, OPTION_REPLY.ACK)
        return undefined
      case OPTION.STRUCTURED_REPLY:
        refuseData(data)
        this.#structured = true
        writeOptionReply(output, code, OPTION_REPLY.ACK)
        return undefined
      case OPTION.INFO:
      case OPTION.GO:
        return this.#describe(output, code, parseInfoRequest(data))
      case OPTION.LIST_META_CONTEXT:
      case OPTION.SET_META_CONTEXT:
        this.#metaContext(output, code, data)
        return undefined
      case OPTION.STARTTLS:
        refuseData(data)
        writeOptionError(output, code, OPTION_REPLY.ERR_UNSUP, 'this server does not speak TLS')
        return undefined
      default:
        writeOptionError(output, code, OPTION_REPLY.ERR_UNSUP, `option ${code} is not known here`)
        return undefined
    }
  }

  /** EXPORT_NAME has no error reply: all that can be done about a wrong name is to hang up. */
  #chooseByName(output: SendQueue, data: Buffer): string {
    const name = parseName(data)
    if (!this.#serves(name)) throw new LonghornError('PROTOCOL', `the client asks for ${this.#unknown(name)}`)
    const withZeroes = (this.#clientFlags! & HANDSHAKE.NO_ZEROES) === 0
    writeExport(output, this.exported.sizeBytes, this.#transmissionFlags(), withZeroes)
    return name
  }

  #describe(output: SendQueue, code: number, {exportName, wanted}: InfoRequest): string | undefined {
    if (!this.#serves(exportName)) {
      writeOptionError(output, code, OPTION_REPLY.ERR_UNKNOWN, this.#unknown(exportName))
      return undefined
    }
    const {name, sizeBytes} = this.exported
    writeOptionReply(output, code, OPTION_REPLY.INFO, exportData(sizeBytes, this.#transmissionFlags()))
    if (wanted.has(INFO.NAME)) writeOptionReply(output, code, OPTION_REPLY.INFO, textData(INFO.NAME, name))
    if (wanted.has(INFO.DESCRIPTION)) writeOptionReply(output, code, OPTION_REPLY.INFO, textData(INFO.DESCRIPTION, `Longhorn volume ${name}`))
    if (wanted.has(INFO.BLOCK_SIZE)) writeOptionReply(output, code, OPTION_REPLY.INFO, blockSizeData())
    writeOptionReply(output, code, OPTION_REPLY.ACK)
    return code === OPTION.GO ? exportName : undefined
  }

  #metaContext(output: SendQueue, code: number, data: Buffer): void {
    // Whatever comes of it, what was chosen before is gone.
    if (code === OPTION.SET_META_CONTEXT) this.#contextFor = undefined
    const {exportName, queries} = parseMetaContextRequest(data)
    if (!this.#structured) throw new LonghornError('PROTOCOL', 'metadata contexts need structured replies, which come first')
    if (!this.#serves(exportName)) {
      writeOptionError(output, code, OPTION_REPLY.ERR_UNKNOWN, this.#unknown(exportName))
      return
    }
    if (code === OPTION.SET_META_CONTEXT) {
      if (queries.includes(ALLOCATION)) {
        this.#contextFor = exportName
        writeOptionReply(output, code, OPTION_REPLY.META_CONTEXT, metaContextData(ALLOCATION_ID, ALLOCATION))
      }
    } else if (queries.length === 0 || queries.includes('base:') || queries.includes(ALLOCATION)) {
      writeOptionReply(output, code, OPTION_REPLY.META_CONTEXT, metaContextData(0, ALLOCATION))
    }
    writeOptionReply(output, code, OPTION_REPLY.ACK)
  }

  /** The empty name is the default export, and the only one there is. */
  #serves(name: string): boolean {
    return name === this.exported.name || name === ''
  }

  #unknown(name: string): string {
    return `export "${name.slice(0, 200)}", but this server has only "${this.exported.name}"`
  }

  /**
   * One volume is behind all connections and a flush covers what any of them wrote, hence CAN_MULTI_CONN. Not offered are
   * FAST_ZERO, because zeroes over a snapshot's data are written out, and CACHE, because there is no cache to fill.
   */
  #transmissionFlags(): number {
    const {HAS_FLAGS, SEND_FLUSH, SEND_FUA, SEND_TRIM, SEND_WRITE_ZEROES, CAN_MULTI_CONN, SEND_DF} = TRANSMISSION
    return HAS_FLAGS | SEND_FLUSH | SEND_FUA | SEND_TRIM | SEND_WRITE_ZEROES | CAN_MULTI_CONN | (this.#structured ? SEND_DF : 0)
  }
}

interface OptionRequest {
  readonly code: number
  /** In the stream's input: to be looked at now or never. */
  readonly data: Buffer
}

function refuseData(data: Buffer): void {
  if (data.length > 0) throw new LonghornError('PROTOCOL', `this option has no data, but came with ${data.length} bytes`)
}

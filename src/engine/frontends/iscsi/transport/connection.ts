import {LonghornError} from '../../../../lib/errors.js'
import type {Log} from '../../../../lib/log.js'
import {ByteStream, type StreamHandler} from '../../../../lib/net/byte-stream.js'
import {reactor} from '../../../../lib/net/reactor.js'
import {MAX_IO_BYTES} from '../../../../protocol/block-device.js'
import {arrivedPieceLength} from '../../cutting.js'
import {CommandWindow} from './command-window.js'
import {crc32c} from './crc32c.js'
import {FullFeature, type FullFeatureLink} from './full-feature.js'
import {Login, LOGIN_STATUS, LoginRefusal, type LoginRequest, type LoginResponse} from './login.js'
import {DEFAULT_SEGMENT_BYTES} from './negotiation.js'
import {DIGEST_BYTES, HEADER_BYTES, IncomingPdu, NO_TAG, padded, REQUEST, RESPONSE, TEXT_FLAG, type RejectReason} from './pdu.js'
import {PduWriter} from './pdu-writer.js'
import type {Session, SessionLink} from './session.js'
import {localName, peerName} from './socket-names.js'
import type {Target} from './target.js'
import {TextExchange, type TargetListing} from './text-exchange.js'
import type {WriteTransfer} from './write-transfer.js'

/** How long an initiator may take for what. */
export interface Timeouts {
  /** From connecting to the full feature phase. */
  readonly loginMs: number
  /** Without a word from it, it is asked whether it is there … */
  readonly pingAfterMs: number
  /** … and given up when it does not answer. */
  readonly pingMs: number
  /** Without taking any of what waits for it. */
  readonly stallMs: number
}

/** What the server gives each of its connections. */
export interface ConnectionOptions {
  readonly target: Target
  readonly timeouts: Timeouts
  readonly log: Log
  /** Called once. */
  readonly onClose: (connection: Connection) => void
}

/** Commands that an initiator may have under way. Linux asks for at most as many. */
const WINDOW = 128

/** One connection: cuts its input into PDUs, takes it through its login, and keeps watch over the initiator. */
export class Connection implements StreamHandler, SessionLink, FullFeatureLink {
  readonly writer: PduWriter
  /** The initiator's number for this connection in its session. */
  cid = 0
  readonly #stream: ByteStream
  readonly #pdu: IncomingPdu
  readonly #login: Login
  readonly #address: string | undefined
  #loginBegun = false
  #full: FullFeature | undefined
  #session: Session | undefined
  #maxSegment = DEFAULT_SEGMENT_BYTES
  #headerDigest = 0
  #dataDigest = 0
  /** A PDU's data is arriving, of which so much is missing: -1 when none is. */
  #dataLeft = -1
  #padding = 0
  #dataTo: WriteTransfer | undefined
  #waiting = false
  /** Ends everything, for the log. */
  #farewell = ''
  readonly #openedAt = performance.now()
  #heardAt = performance.now()
  #pingedAt = 0
  #pingTag = 0
  #taken = 0
  #takenAt = performance.now()

  /** Takes over the descriptor of a connected socket. `label`: for the log, until the initiator has said its name. */
  constructor(
    fd: number,
    label: string,
    readonly options: ConnectionOptions,
  ) {
    this.#address = localName(fd)
    this.#stream = new ByteStream(fd, this, peerName(fd) ?? label)
    this.#pdu = new IncomingPdu(this.#stream.slab)
    this.#login = new Login(options.target.rules)
    this.writer = new PduWriter(this.#stream, new CommandWindow(0, WINDOW))
  }

  /** Who is at the other end: the initiator's name as soon as it is known, and where it is. */
  get peer(): string {
    const {initiatorName} = this.#login
    return initiatorName === '' ? this.#stream.peer : `${initiatorName} at ${this.#stream.peer}`
  }

  get unsentBytes(): number {
    return this.#stream.output.bytes
  }

  /** Commands that have no answer yet, or whose answer has not been taken. */
  get isBusy(): boolean {
    return (this.#session?.commands ?? 0) > 0 || this.#stream.output.pending
  }

  /** In the full feature phase of a normal session. */
  get hasSession(): boolean {
    return this.#session !== undefined
  }

  onInput(stream: ByteStream): void {
    this.#heardAt = reactor.now
    this.#pingedAt = 0
    while (!stream.closed && !this.#waiting) {
      if (this.#dataLeft >= 0 ? !this.#continueData() : !this.#nextPdu()) return
    }
  }

  onDrain(): void {
    this.#session?.admit()
    this.wake()
  }

  onClose(_stream: ByteStream, reason: Error | undefined): void {
    const {log, target, onClose} = this.options
    const why = this.#farewell || reason?.message
    if (why === undefined) log.debug({peer: this.peer}, 'iscsi: disconnected')
    else log.warn({peer: this.peer, reason: why}, 'iscsi: connection ended')
    const session = this.#session
    // Not if another connection has taken its place.
    if (session?.link === this) target.close(session)
    onClose(this)
  }

  wake(): void {
    if (!this.#waiting || this.#mustWait()) return
    this.#waiting = false
    this.#stream.resume()
  }

  reject(pdu: IncomingPdu, reason: RejectReason, why: string): void {
    this.options.log.warn({peer: this.peer, opcode: pdu.opcode, taskTag: pdu.taskTag >>> 0, reason: why}, 'iscsi: PDU rejected')
    this.writer.control({opcode: RESPONSE.REJECT, detail: reason << 8, taskTag: NO_TAG, statSN: 'next'}, pdu.header)
  }

  feed(pdu: IncomingPdu, to: WriteTransfer | undefined): void {
    if (to === undefined) return
    const end = pdu.dataAt + pdu.dataBytes
    for (let at = pdu.dataAt; at < end; at += MAX_IO_BYTES) to.take(pdu.slab, at, Math.min(MAX_IO_BYTES, end - at))
    to.endSegment()
  }

  pingAnswered(tag: number): void {
    if (tag !== this.#pingTag) this.options.log.debug({peer: this.peer}, 'iscsi: answer to a ping that was not sent')
  }

  flush(): void {
    this.#stream.flush()
  }

  end(why: string): void {
    this.#farewell = why
    this.#stream.destroy()
  }

  endAfterFlush(): void {
    this.#stream.endAfterFlush()
  }

  /** Asks the initiator to leave, and takes no new commands. */
  requestLogout(seconds: number): void {
    if (this.#full === undefined) {
      this.end('the target is shutting down')
      return
    }
    this.#session?.refuseNew()
    this.#full.requestLogout(seconds)
  }

  /** Called about once a second: nothing is done per request to notice an initiator that is gone. */
  checkTimeouts(now: number): void {
    const {timeouts} = this.options
    if (this.#full === undefined) {
      if (now - this.#openedAt > timeouts.loginMs) this.#giveUp(`no login within ${timeouts.loginMs} ms`)
      return
    }
    const {taken} = this.writer
    if (taken !== this.#taken || !this.#stream.output.pending) {
      this.#taken = taken
      this.#takenAt = now
    } else if (now - this.#takenAt > timeouts.stallMs) {
      this.#giveUp(`has taken nothing of what was sent for ${timeouts.stallMs} ms`)
      return
    }
    // Its answer would not be received.
    if (this.#waiting) return
    if (this.#pingedAt > 0) {
      if (now - this.#pingedAt > timeouts.pingMs) this.#giveUp(`did not answer a ping within ${timeouts.pingMs} ms`)
    } else if (now - this.#heardAt > timeouts.pingAfterMs) {
      this.#pingedAt = now
      this.#pingTag = (this.#pingTag + 1) & 0x7fffffff
      this.#full.ping(this.#pingTag)
    }
  }

  #giveUp(why: string): void {
    this.#stream.destroy(new LonghornError('TIMEOUT', why))
  }

  /** More would be received than can be sent or kept. */
  #mustWait(): boolean {
    return this.unsentBytes > this.options.target.budget.bytesPerConnection || this.#session?.isFull === true
  }

  /** Handles the next PDU, or its header if its data can be passed on as it arrives. False when more has to arrive first. */
  #nextPdu(): boolean {
    const stream = this.#stream
    if (stream.available < HEADER_BYTES) return false
    if (this.#mustWait()) {
      this.#waiting = true
      stream.pause()
      return false
    }
    reactor.busyPoll.messages++
    const pdu = this.#pdu
    pdu.read(stream.slab, stream.start, this.#headerDigest)
    // It may not even be iSCSI: its lengths mean nothing then.
    if (!this.#loginBegun && pdu.opcode !== REQUEST.LOGIN) throw new LonghornError('PROTOCOL', 'the connection does not begin with an iSCSI login')
    const headerBytes = HEADER_BYTES + pdu.additionalBytes + this.#headerDigest
    if (stream.available < headerBytes) return false
    if (this.#headerDigest > 0) this.#checkHeader(pdu)
    const {dataBytes} = pdu
    if (dataBytes > this.#maxSegment) throw new LonghornError('PROTOCOL', `${dataBytes} bytes of data in one PDU, ${this.#maxSegment} are agreed`)
    const full = this.#full
    if (full !== undefined && this.#dataDigest === 0 && full.mayCutThrough(pdu)) {
      stream.start += headerBytes
      this.#beginData(full.handle(pdu, false), dataBytes)
      return true
    }
    const total = headerBytes + (dataBytes > 0 ? padded(dataBytes) + this.#dataDigest : 0)
    if (stream.available < total) return false
    stream.start += total
    if (full === undefined) this.#handleLogin(pdu)
    else this.feed(pdu, full.handle(pdu, dataBytes > 0 && this.#dataDigest > 0 && !this.#isIntact(pdu)))
    return true
  }

  /** The header decides where the next PDU begins: if it is wrong, nothing that follows can be read. */
  #checkHeader(pdu: IncomingPdu): void {
    const end = pdu.at + HEADER_BYTES + pdu.additionalBytes
    if (crc32c(pdu.slab.buffer, pdu.at, end) === pdu.view.getUint32(end, true)) return
    throw new LonghornError('PROTOCOL', 'a header digest does not match')
  }

  #isIntact(pdu: IncomingPdu): boolean {
    const end = pdu.dataAt + padded(pdu.dataBytes)
    return crc32c(pdu.slab.buffer, pdu.dataAt, end) === pdu.view.getUint32(end, true)
  }

  #beginData(to: WriteTransfer | undefined, dataBytes: number): void {
    if (dataBytes === 0) {
      to?.endSegment()
      return
    }
    this.#dataTo = to
    this.#dataLeft = dataBytes
    this.#padding = padded(dataBytes) - dataBytes
  }

  /** Passes on what has arrived of a PDU's data, in pieces that are worth it. False when more has to arrive first. */
  #continueData(): boolean {
    const stream = this.#stream
    const to = this.#dataTo
    if (this.#dataLeft > 0) {
      const arrived = Math.min(this.#dataLeft, stream.available)
      const length = to === undefined ? arrived : arrivedPieceLength(to.received, this.#dataLeft, arrived)
      if (length === 0) return false
      const {slab, start} = stream
      stream.start += length
      this.#dataLeft -= length
      to?.take(slab, start, length)
      if (this.#dataLeft > 0) return true
    }
    if (stream.available < this.#padding) return false
    stream.start += this.#padding
    this.#dataLeft = -1
    this.#dataTo = undefined
    to?.endSegment()
    return true
  }

  #handleLogin(pdu: IncomingPdu): void {
    try {
      if (pdu.opcode !== REQUEST.LOGIN) throw new LoginRefusal(LOGIN_STATUS.INVALID_DURING_LOGIN, `a PDU with opcode ${pdu.opcode} during login`)
      this.#beginLogin(pdu)
      const response = this.#login.handle(loginRequest(pdu))
      if (response.done) this.#finishLogin(pdu, response)
      else this.#respondToLogin(pdu, response, this.#login.tsih)
    } catch (error) {
      if (!(error instanceof LoginRefusal)) throw error
      this.#farewell = `login refused: ${error.message}`
      this.writer.loginResponse({...fieldsOf(pdu), flags: pdu.flags & 0x0c, tsih: pdu.u16(14), status: error.status}, Buffer.alloc(0))
      this.#stream.endAfterFlush()
    }
  }

  #beginLogin(pdu: IncomingPdu): void {
    if (this.#loginBegun) return
    this.#loginBegun = true
    this.cid = pdu.u16(20)
    this.writer.window = new CommandWindow(pdu.cmdSN, WINDOW)
  }

  /** The login is complete for the initiator; what it leads to decides whether it is for the target. */
  #finishLogin(pdu: IncomingPdu, response: LoginResponse): void {
    const {target, log} = this.options
    const login = this.#login
    const {parameters} = login
    const isNormal = login.session === 'normal'
    if (!isNormal && login.tsih !== 0) throw new LoginRefusal(LOGIN_STATUS.NO_SUCH_SESSION, 'a discovery session cannot be continued')
    const opened = isNormal ? target.open(login, this.writer.window, this, this.peer) : undefined
    const session = opened?.session
    if (session !== undefined) this.writer.window = session.window
    this.#respondToLogin(pdu, response, session?.tsih ?? target.newTsih())
    this.#session = session
    this.#maxSegment = parameters.maxReceiveSegment
    this.#headerDigest = parameters.headerDigest ? DIGEST_BYTES : 0
    this.#dataDigest = parameters.dataDigest ? DIGEST_BYTES : 0
    this.writer.headerDigest = parameters.headerDigest
    this.writer.dataDigest = parameters.dataDigest
    const text = new TextExchange({
      writer: this.writer,
      session: login.session,
      parameters: session?.parameters ?? parameters,
      listing: this.#listing(),
      reject: (bad, reason, why) => this.reject(bad, reason, why),
    })
    this.#full = new FullFeature({link: this, target, window: this.writer.window, text, session})
    if (opened !== undefined) log.info({peer: this.peer, session: opened.session.tsih}, opened.reinstated ? 'iscsi: connection replaced' : 'iscsi: session started')
  }

  #respondToLogin(pdu: IncomingPdu, {transit, moreFollows, currentStage, nextStage, text}: LoginResponse, tsih: number): void {
    const flags = (transit ? TEXT_FLAG.TRANSIT : 0) | (moreFollows ? TEXT_FLAG.CONTINUE : 0) | (currentStage << 2) | nextStage
    this.writer.loginResponse({...fieldsOf(pdu), flags, tsih, status: LOGIN_STATUS.SUCCESS}, text)
  }

  #listing(): TargetListing | undefined {
    const {rules} = this.options.target
    if (rules.allowedInitiators?.has(this.#login.initiatorName) === false) return undefined
    return {name: rules.targetName, address: this.#address === undefined ? undefined : `${this.#address},${rules.portalGroup}`}
  }
}

/** What a response repeats of its request. */
function fieldsOf(pdu: IncomingPdu): {isid: Buffer; taskTag: number} {
  return {isid: isidOf(pdu), taskTag: pdu.taskTag}
}

function isidOf(pdu: IncomingPdu): Buffer {
  return pdu.slab.buffer.subarray(pdu.at + 8, pdu.at + 14)
}

// A Login Request: 1 u8 flags (0x80 transit, 0x40 continue, 0x0c current stage, 0x03 next stage)  2 u8 version-max
// 3 u8 version-min  8 6 bytes ISID  14 u16 TSIH  16 u32 task tag  20 u16 CID  24 u32 CmdSN
function loginRequest(pdu: IncomingPdu): LoginRequest {
  const {flags} = pdu
  return {
    transit: (flags & TEXT_FLAG.TRANSIT) !== 0,
    moreFollows: (flags & TEXT_FLAG.CONTINUE) !== 0,
    currentStage: (flags >> 2) & 3,
    nextStage: flags & 3,
    versionMin: pdu.u16(2) & 0xff,
    isid: isidOf(pdu),
    tsih: pdu.u16(14),
    taskTag: pdu.taskTag,
    cid: pdu.u16(20),
    text: pdu.data,
  }
}

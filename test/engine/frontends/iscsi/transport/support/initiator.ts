import {once} from 'node:events'
import {connect, type Socket} from 'node:net'
import {decode, encode, IMMEDIATE, ISID, loginPdu, lunBytes, NONE, OP, pairsOf, rw10, type Digests, type LoginFields, type Pdu, type Received} from './wire.js'

export const TARGET = 'iqn.2019-10.io.longhorn:vol'
export const INITIATOR = 'iqn.2000-01.org.example:one'

const BLOCK_BYTES = 512

/** What was agreed, as far as this initiator cares. */
export interface Agreed {
  readonly immediate?: boolean
  readonly initialR2T?: boolean
  readonly firstBurst?: number
  /** Bytes that it takes in one PDU. */
  readonly segment?: number
  /** Bytes that it sends in one Data-Out PDU, if the target takes as many. */
  readonly piece?: number
}

export interface SessionOptions extends Agreed {
  readonly name?: string
  readonly isid?: Buffer
  readonly tsih?: number
  readonly cid?: number
  readonly digests?: Digests
  readonly keys?: Readonly<Record<string, string>>
}

interface Pending {
  readonly parts: {readonly offset: number; readonly data: Buffer}[]
  readonly write: Buffer | undefined
  readonly resolve: (result: Result) => void
  readonly reject: (error: Error) => void
}

/** The end of a command. */
export interface Result {
  readonly status: number
  readonly sense: Buffer
  readonly data: Buffer
  /** Data-In and R2T PDUs. */
  readonly pdus: readonly Received[]
  readonly last: Received
}

export class CommandFailed extends Error {
  constructor(readonly result: Result) {
    super(`status 0x${result.status.toString(16)}, sense ${result.sense.toString('hex')}`)
  }
}

/**
 * A small initiator on Node's own sockets. At the lower level it sends any PDU and waits for the next one that comes; at
 * the upper one it runs commands, many at a time, within the command window.
 */
export class Initiator {
  digests: Digests = {}
  agreed: Required<Agreed> = {immediate: true, initialR2T: true, firstBurst: 65536, segment: 8192, piece: 8192}
  cmdSN = 1
  expCmdSN = 1
  maxCmdSN = 1
  tsih = 0
  nextItt = 100
  /** Says what came from the target beside answers to commands. */
  readonly others: Received[] = []
  /** How the connection ended. */
  ended = false
  #bytes = Buffer.alloc(0)
  readonly #received: Received[] = []
  readonly #waiting: ((pdu: Received | undefined) => void)[] = []
  readonly #commands = new Map<number, Pending & {pdus: Received[]}>()
  #running = false
  readonly #outside: (() => void)[] = []

  private constructor(readonly socket: Socket) {
    socket.on('data', chunk => this.#input(chunk))
    socket.on('error', () => undefined)
    socket.on('close', () => this.#closed())
  }

  static async connect(port: number, host = '127.0.0.1'): Promise<Initiator> {
    const socket = connect({port, host, noDelay: true})
    const initiator = new Initiator(socket)
    await Promise.race([once(socket, 'connect'), once(socket, 'close').then(() => Promise.reject(new Error('refused')))])
    return initiator
  }

  /** Connected and in the full feature phase of a normal session. */
  static async open(port: number, options: SessionOptions = {}): Promise<Initiator> {
    const initiator = await Initiator.connect(port)
    await initiator.login(options)
    return initiator
  }

  async login(options: SessionOptions = {}): Promise<Received> {
    const {name = INITIATOR, isid = ISID, tsih = 0, cid = 0, digests = {}, keys = {}} = options
    this.agreed = {immediate: true, initialR2T: false, firstBurst: 65536, segment: 65536, piece: 65536, ...withoutUndefined(options)}
    const {immediate, initialR2T, firstBurst, segment} = this.agreed
    const response = await this.loginStep({
      isid,
      tsih,
      cid,
      text: {
        InitiatorName: name,
        TargetName: TARGET,
        SessionType: 'Normal',
        HeaderDigest: digests.header === true ? 'CRC32C' : 'None',
        DataDigest: digests.data === true ? 'CRC32C' : 'None',
        ImmediateData: immediate ? 'Yes' : 'No',
        InitialR2T: initialR2T ? 'Yes' : 'No',
        FirstBurstLength: `${firstBurst}`,
        MaxBurstLength: '262144',
        MaxRecvDataSegmentLength: `${segment}`,
        ...keys,
      },
    })
    if (response.at36 !== 0) throw new Error(`login refused: ${(response.at36 >>> 16).toString(16)}`)
    this.digests = digests
    this.agreed = {...this.agreed, piece: Math.min(this.agreed.piece, Number(pairsOf(response.data).MaxRecvDataSegmentLength ?? 8192))}
    this.tsih = response.header.readUInt16BE(14)
    return response
  }

  /** Sends a login request and waits for its response. */
  async loginStep(fields: LoginFields): Promise<Received> {
    this.send(loginPdu({cmdSN: this.cmdSN, ...fields}))
    return this.next()
  }

  send(pdu: Pdu): void {
    this.socket.write(encode(pdu, this.digests))
  }

  /** The next PDU that is no answer to a command. Rejects when the connection ends first. */
  async next(): Promise<Received> {
    const pdu = await this.nextOrEnd()
    if (pdu === undefined) throw new Error('the connection has ended')
    return pdu
  }

  async nextOrEnd(): Promise<Received | undefined> {
    const pdu = this.#received.shift()
    if (pdu !== undefined || this.ended) return pdu
    return new Promise(resolve => this.#waiting.push(resolve))
  }

  /** Resolves when the target has hung up. */
  async end(): Promise<void> {
    if (!this.ended) await new Promise(resolve => this.socket.once('close', resolve))
  }

  /** Runs a command to its end, whatever that is. From now on answers to commands go to whoever runs them. */
  run(cdb: Buffer, options: {lun?: number; read?: number; write?: Buffer; expected?: number; immediate?: boolean; attribute?: number; itt?: number} = {}): Promise<Result> {
    this.#running = true
    const itt = options.itt ?? this.nextItt++
    return new Promise((resolve, reject) => {
      this.#commands.set(itt, {parts: [], pdus: [], write: options.write, resolve, reject})
      if (this.ended) reject(new Error('the connection has ended'))
      const start = (): void => this.#start(itt, cdb, options)
      if (options.immediate === true || ((this.maxCmdSN - this.cmdSN) | 0) >= 0) start()
      else this.#outside.push(start)
    })
  }

  async read(block: number, blocks: number): Promise<Buffer> {
    const result = await this.run(rw10(0x28, block, blocks), {read: blocks * BLOCK_BYTES})
    if (result.status !== 0) throw new CommandFailed(result)
    return result.data
  }

  async write(block: number, data: Buffer): Promise<void> {
    const result = await this.run(rw10(0x2a, block, data.length / BLOCK_BYTES), {write: data})
    if (result.status !== 0) throw new CommandFailed(result)
  }

  async ping(data = Buffer.from('are you there')): Promise<Received> {
    const itt = this.nextItt++
    this.send({opcode: OP.NOP_OUT | IMMEDIATE, itt, at20: NONE, at24: this.cmdSN, data})
    const answer = await this.next()
    if (answer.opcode !== OP.NOP_IN || answer.itt !== itt || !answer.data.equals(data)) throw new Error('no answer to a ping')
    return answer
  }

  async manage(action: number, fields: {lun?: number; task?: number; refCmdSN?: number} = {}): Promise<number> {
    const itt = this.nextItt++
    this.send({
      opcode: OP.TMF | IMMEDIATE,
      flags: 0x80 | action,
      lun: lunBytes(fields.lun ?? 1),
      itt,
      at20: fields.task ?? NONE,
      at24: this.cmdSN,
      at32: fields.refCmdSN ?? 0,
    })
    const answer = await this.next()
    if (answer.opcode !== OP.TMF_RESPONSE || answer.itt !== itt) throw new Error(`no answer to a task management request, but opcode ${answer.opcode}`)
    return answer.byte2
  }

  async logout(reason = 0, cid = 0): Promise<number> {
    const itt = this.nextItt++
    this.send({opcode: OP.LOGOUT | IMMEDIATE, flags: 0x80 | reason, itt, at20: cid * 0x10000, at24: this.cmdSN})
    const answer = await this.next()
    if (answer.opcode !== OP.LOGOUT_RESPONSE) throw new Error('no answer to a logout')
    return answer.byte2
  }

  kill(): void {
    this.socket.destroy()
  }

  #start(itt: number, cdb: Buffer, options: {lun?: number; read?: number; write?: Buffer; expected?: number; immediate?: boolean; attribute?: number}): void {
    const {write, read = 0, attribute = 1} = options
    const {immediate, initialR2T, firstBurst, piece} = this.agreed
    const expected = options.expected ?? write?.length ?? read
    const first = write !== undefined && immediate ? Math.min(write.length, firstBurst, piece) : 0
    const unsolicited = write !== undefined && !initialR2T ? Math.min(write.length, firstBurst) : first
    this.send({
      opcode: OP.COMMAND | (options.immediate === true ? IMMEDIATE : 0),
      flags: (unsolicited > first ? 0 : 0x80) | (read > 0 ? 0x40 : 0) | (write !== undefined ? 0x20 : 0) | attribute,
      lun: lunBytes(options.lun ?? 1),
      itt,
      at20: expected,
      at24: this.cmdSN,
      cdb,
      data: write?.subarray(0, first) ?? Buffer.alloc(0),
    })
    if (options.immediate !== true) this.cmdSN = (this.cmdSN + 1) >>> 0
    if (unsolicited > first) this.#sendData(itt, NONE, write!, first, unsolicited)
  }

  #sendData(itt: number, ttt: number, data: Buffer, from: number, to: number): void {
    let number = 0
    for (let at = from; at < to; number++) {
      const end = Math.min(to, at + this.agreed.piece)
      this.send({opcode: OP.DATA_OUT, flags: end === to ? 0x80 : 0, lun: lunBytes(1), itt, at20: ttt, at36: number, at40: at, data: data.subarray(at, end)})
      at = end
    }
  }

  #input(chunk: Buffer): void {
    this.#bytes = Buffer.concat([this.#bytes, chunk])
    for (;;) {
      const next = decode(this.#bytes, this.digests)
      if (next === undefined) return
      this.#bytes = this.#bytes.subarray(next.length)
      this.#handle(next.pdu)
    }
  }

  #handle(pdu: Received): void {
    this.expCmdSN = pdu.expCmdSN
    this.maxCmdSN = pdu.maxCmdSN
    const command = this.#running ? this.#commands.get(pdu.itt) : undefined
    if (command !== undefined && [OP.DATA_IN, OP.R2T, OP.RESPONSE].includes(pdu.opcode)) this.#advance(command, pdu)
    else this.#deliver(pdu)
    while (this.#outside.length > 0 && ((this.maxCmdSN - this.cmdSN) | 0) >= 0) this.#outside.shift()!()
  }

  #deliver(pdu: Received): void {
    // The digests that were agreed hold from the answer that ends the login on, which may be followed at once.
    const waiting = this.#waiting.shift()
    if (waiting !== undefined) waiting(pdu)
    else this.#received.push(pdu)
  }

  #advance(command: Pending & {pdus: Received[]}, pdu: Received): void {
    if (pdu.opcode !== OP.RESPONSE) command.pdus.push(pdu)
    if (pdu.opcode === OP.R2T) {
      this.#sendData(pdu.itt, pdu.at20, command.write!, pdu.at40, pdu.at40 + pdu.at44)
      return
    }
    if (pdu.opcode === OP.DATA_IN) {
      command.parts.push({offset: pdu.at40, data: pdu.data})
      if ((pdu.flags & 1) === 0) return
    }
    this.#commands.delete(pdu.itt)
    const data = Buffer.alloc(command.parts.reduce((end, part) => Math.max(end, part.offset + part.data.length), 0))
    for (const part of command.parts) part.data.copy(data, part.offset)
    const sense = pdu.opcode === OP.RESPONSE && pdu.data.length > 2 ? pdu.data.subarray(2) : Buffer.alloc(0)
    command.resolve({status: pdu.byte3, sense, data, pdus: command.pdus, last: pdu})
  }

  #closed(): void {
    this.ended = true
    for (const waiting of this.#waiting.splice(0)) waiting(undefined)
    for (const command of this.#commands.values()) command.reject(new Error('the connection has ended'))
    this.#commands.clear()
  }
}

function withoutUndefined({immediate, initialR2T, firstBurst, segment, piece}: Agreed): Agreed {
  return Object.fromEntries(Object.entries({immediate, initialR2T, firstBurst, segment, piece}).filter(([, value]) => value !== undefined))
}

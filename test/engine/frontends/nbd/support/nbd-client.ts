import {connect, type Socket} from 'node:net'
import {CMD, FLAG, fullHandshake, hex, infoData, option, OPT, REP, request, u32, type Chunk, type OptionReply, type RequestFields} from './wire.js'

/** A request that the server has refused or could not carry out. */
export class NbdError extends Error {
  constructor(
    readonly errno: number,
    readonly text: string,
  ) {
    super(`error ${errno}${text && `: ${text}`}`)
  }
}

/** What a request has been answered with; `data` are those of a READ, zeroes where nothing came. */
export interface Answer {
  readonly error: number
  readonly text: string
  readonly data: Buffer
  readonly chunks: readonly Chunk[]
}

interface Waiting {
  readonly fields: RequestFields
  readonly chunks: Chunk[]
  readonly resolve: (answer: Answer) => void
  readonly reject: (reason: Error) => void
}

/** Where a server of the tests listens. */
export type Target = string | {readonly host: string; readonly port: number}

/**
 * A small NBD client. Before the transmission phase its user reads and writes bytes; then `request()` matches replies
 * with requests, and everything that does not fit the protocol's document is an error.
 */
export class NbdClient {
  readonly #waiting = new Map<bigint, Waiting>()
  /** What has come and is not taken, as it came: putting it together each time would take forever for large reads. */
  readonly #chunks: Buffer[] = []
  #available = 0
  readonly #sleeping: (() => void)[] = []
  #ended = false
  #nextCookie = 1n
  /** No replies will come any more. */
  #over = false
  structured = false
  sizeBytes = 0
  transmissionFlags = 0
  /** What came that is no reply. */
  protocolError: Error | undefined

  private constructor(readonly socket: Socket) {
    socket.on('data', chunk => {
      this.#chunks.push(chunk)
      this.#available += chunk.length
      this.#wake()
    })
    const ended = (): void => {
      this.#ended = true
      this.#wake()
    }
    socket.on('error', ended).on('close', ended)
  }

  /** A connection on which nothing has been said. */
  static async connect(target: Target): Promise<NbdClient> {
    const socket = typeof target === 'string' ? connect(target) : connect(target)
    await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject))
    return new NbdClient(socket)
  }

  /** A connection in the transmission phase, with structured replies and block status. */
  static async open(target: Target, name = ''): Promise<NbdClient> {
    const client = await NbdClient.connect(target)
    client.socket.write(fullHandshake(name))
    await client.greeting()
    await client.optionReply()
    await client.optionReply()
    await client.optionReply()
    client.structured = true
    await client.enterTransmission()
    return client
  }

  /** A connection in the transmission phase as an old client makes it: simple replies. */
  static async openSimple(target: Target, name = ''): Promise<NbdClient> {
    const client = await NbdClient.connect(target)
    client.socket.write(Buffer.concat([u32(3), option(OPT.GO, infoData(name))]))
    await client.greeting()
    await client.enterTransmission()
    return client
  }

  /** The next `count` bytes; rejects when the server hangs up before. */
  async bytes(count: number): Promise<Buffer> {
    while (this.#available < count) {
      if (this.#ended) throw new Error(`the server hung up after ${this.#available} of ${count} bytes`)
      await this.#change()
    }
    const [first = Buffer.alloc(0)] = this.#chunks
    const input = first.length >= count ? first : Buffer.concat(this.#chunks.splice(0))
    if (first.length >= count) this.#chunks.shift()
    if (input.length > count) this.#chunks.unshift(input.subarray(count))
    this.#available -= count
    return input.subarray(0, count)
  }

  /** All that comes until the server hangs up. */
  async rest(): Promise<Buffer> {
    while (!this.#ended) await this.#change()
    return this.bytes(this.#available)
  }

  /** Something has come, or nothing will any more. */
  #change(): Promise<void> {
    return new Promise(resolve => this.#sleeping.push(resolve))
  }

  #wake(): void {
    for (const wake of this.#sleeping.splice(0)) wake()
  }

  async greeting(): Promise<void> {
    const bytes = await this.bytes(18)
    if (!bytes.equals(hex('4e42444d41474943 49484156454f5054 0003'))) throw new Error(`a greeting of ${bytes.toString('hex')}`)
  }

  async optionReply(): Promise<OptionReply> {
    const header = await this.bytes(20)
    if (header.readBigUInt64BE() !== 0x3e889045565a9n) throw new Error(`an option reply without magic: ${header.toString('hex')}`)
    return {option: header.readUInt32BE(8), type: header.readUInt32BE(12), data: await this.bytes(header.readUInt32BE(16))}
  }

  /** Sends an option and gives its replies up to the final one. */
  async option(code: number, data?: Buffer): Promise<OptionReply[]> {
    this.socket.write(option(code, data))
    const replies: OptionReply[] = []
    do replies.push(await this.optionReply())
    while ((replies.at(-1)?.type ?? 0) !== REP.ACK && (replies.at(-1)?.type ?? 0) < 2 ** 31)
    return replies
  }

  /** Takes the replies to GO, the last option, and starts to match replies with requests. */
  async enterTransmission(): Promise<void> {
    for (;;) {
      const {type, data} = await this.optionReply()
      if (type === REP.ACK) break
      if (type !== REP.INFO) throw new NbdError(type, data.toString())
      if (data.readUInt16BE() === 0) this.#described(Number(data.readBigUInt64BE(2)), data.readUInt16BE(10))
    }
    this.startMatching()
  }

  startMatching(): void {
    void this.#matchReplies()
  }

  #described(sizeBytes: number, flags: number): void {
    this.sizeBytes = sizeBytes
    this.transmissionFlags = flags
  }

  /** Sends a request; resolves with the answer whatever it is, rejects when the connection ends first. */
  request(fields: RequestFields): Promise<Answer> {
    if (this.#over) return Promise.reject(new Error('the connection is over'))
    const cookie = fields.cookie ?? this.#nextCookie++
    const answered = new Promise<Answer>((resolve, reject) => {
      this.#waiting.set(cookie, {fields, chunks: [], resolve, reject})
    })
    this.socket.write(request({...fields, cookie}))
    return answered
  }

  async read(offset: number, length: number, flags = 0): Promise<Buffer> {
    return (await this.#good({command: CMD.READ, offset, length, flags})).data
  }

  async write(offset: number, payload: Buffer, fua = false): Promise<void> {
    await this.#good({command: CMD.WRITE, offset, payload, flags: fua ? FLAG.FUA : 0})
  }

  async flush(): Promise<void> {
    await this.#good({command: CMD.FLUSH})
  }

  async discard(offset: number, length: number): Promise<void> {
    await this.#good({command: CMD.TRIM, offset, length})
  }

  async zeroes(offset: number, length: number, flags = 0): Promise<void> {
    await this.#good({command: CMD.WRITE_ZEROES, offset, length, flags})
  }

  /** Says goodbye and waits for the server to hang up. */
  async close(): Promise<void> {
    if (!this.#ended) this.socket.write(request({command: CMD.DISC}))
    await this.rest()
    this.socket.destroy()
  }

  /** Breaks the connection off. */
  kill(): void {
    if (this.socket.remoteFamily === undefined) this.socket.destroy()
    else this.socket.resetAndDestroy()
  }

  async #good(fields: RequestFields): Promise<Answer> {
    const answer = await this.request(fields)
    if (answer.error !== 0) throw new NbdError(answer.error, answer.text)
    return answer
  }

  async #matchReplies(): Promise<void> {
    try {
      for (;;) await (this.structured ? this.#chunk() : this.#simpleReply())
    } catch (error) {
      if (!this.#ended || this.#available > 0) this.protocolError = error as Error
      this.#over = true
      for (const {reject} of this.#waiting.values()) reject(error as Error)
      this.#waiting.clear()
    }
  }

  async #simpleReply(): Promise<void> {
    const header = await this.bytes(16)
    if (header.readUInt32BE() !== 0x67446698) throw new Error(`no simple reply: ${header.toString('hex')}`)
    const error = header.readUInt32BE(4)
    const cookie = header.readBigUInt64BE(8)
    const waiting = this.#waitingFor(cookie)
    const {command, length = 0} = waiting.fields
    const data = command === CMD.READ && error === 0 ? await this.bytes(length) : Buffer.alloc(0)
    this.#waiting.delete(cookie)
    waiting.resolve({error, text: '', data, chunks: []})
  }

  async #chunk(): Promise<void> {
    const header = await this.bytes(20)
    if (header.readUInt32BE() !== 0x668e33ef) throw new Error(`no chunk: ${header.toString('hex')}`)
    const cookie = header.readBigUInt64BE(8)
    const waiting = this.#waitingFor(cookie)
    const payload = await this.bytes(header.readUInt32BE(16))
    const chunk = {cookie, isLast: (header.readUInt16BE(4) & 1) !== 0, type: header.readUInt16BE(6), payload}
    waiting.chunks.push(chunk)
    if (!chunk.isLast) return
    this.#waiting.delete(cookie)
    waiting.resolve(assemble(waiting.fields, waiting.chunks))
  }

  #waitingFor(cookie: bigint): Waiting {
    const waiting = this.#waiting.get(cookie)
    if (waiting === undefined) throw new Error(`a reply to a request that nobody waits for: ${cookie}`)
    return waiting
  }
}

/** Checks the chunks of one reply against each other and against the request. */
function assemble({command, offset = 0, length = 0}: RequestFields, chunks: readonly Chunk[]): Answer {
  const data = Buffer.alloc(command === CMD.READ ? length : 0)
  let covered = 0
  let error = 0
  let text = ''
  const ranges: [number, number][] = []
  for (const {type, payload} of chunks) {
    if (type === 0x8001) {
      if (error !== 0) throw new Error('two errors in one reply')
      error = payload.readUInt32BE()
      if (error === 0) throw new Error('an error chunk without an error')
      text = payload.toString('utf8', 6, 6 + payload.readUInt16BE(4))
    } else if (type === 1) {
      const at = Number(payload.readBigUInt64BE() - BigInt(offset))
      const bytes = payload.subarray(8)
      if (bytes.length === 0 || at < 0 || at + bytes.length > length) throw new Error('data outside the request')
      if (ranges.some(([from, to]) => at < to && from < at + bytes.length)) throw new Error('data sent twice')
      ranges.push([at, at + bytes.length])
      bytes.copy(data, at)
      covered += bytes.length
    } else if (type !== 0 && type !== 5) {
      throw new Error(`a chunk of type ${type}`)
    }
  }
  if (command === CMD.READ && error === 0 && covered !== length) throw new Error(`${covered} of ${length} bytes were sent`)
  return {error, text, data, chunks}
}

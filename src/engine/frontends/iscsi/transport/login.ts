// The login of one connection as RFC 7143 sections 6.3, 11.12 and 13 have it, without the connection: requests in, responses
// out. Two stages, each optional, then the full feature phase:
//
//   security:     AuthMethod and, if that is CHAP, CHAP_A → CHAP_I, CHAP_C → CHAP_N, CHAP_R [→ CHAP_N, CHAP_R of the target]
//   operational:  everything else
//
// Who the initiator is and what it wants is said in the first text. A request that breaks the rules ends the login.
import {isKind} from '../../../../lib/errors.js'
import {Challenge, chapResponse, chooseAlgorithm, formatBinary, parseBinary, type ChapSettings} from './chap.js'
import {
  byDependency,
  DEFAULT_SEGMENT_BYTES,
  defaultParameters,
  isOperationalKey,
  negotiate,
  RECEIVE_SEGMENT_BYTES,
  type Parameters,
  type SessionKind,
} from './negotiation.js'
import {formatPairs, parsePairs, TextAssembly, type Pair} from './text.js'

export const STAGE = {SECURITY: 0, OPERATIONAL: 1, FULL_FEATURE: 3} as const
export type Stage = (typeof STAGE)[keyof typeof STAGE]

/** Status-Class and Status-Detail of a Login Response, as one number. */
export const LOGIN_STATUS = {
  SUCCESS: 0x0000,
  INITIATOR_ERROR: 0x0200,
  AUTHENTICATION_FAILED: 0x0201,
  NOT_ALLOWED: 0x0202,
  NO_SUCH_TARGET: 0x0203,
  UNSUPPORTED_VERSION: 0x0205,
  TOO_MANY_CONNECTIONS: 0x0206,
  MISSING_PARAMETER: 0x0207,
  UNSUPPORTED_SESSION_TYPE: 0x0209,
  NO_SUCH_SESSION: 0x020a,
  INVALID_DURING_LOGIN: 0x020b,
  SERVICE_UNAVAILABLE: 0x0301,
  OUT_OF_RESOURCES: 0x0302,
} as const
export type LoginStatus = (typeof LOGIN_STATUS)[keyof typeof LOGIN_STATUS]

/** A login that cannot go on: the initiator gets the status, the log the text. */
export class LoginRefusal extends Error {
  override readonly name = 'LoginRefusal'

  constructor(
    readonly status: LoginStatus,
    message: string,
  ) {
    super(message)
  }
}

export interface LoginRequest {
  readonly transit: boolean
  readonly moreFollows: boolean
  readonly currentStage: number
  readonly nextStage: number
  readonly versionMin: number
  /** Six bytes that the initiator tells its sessions with this target by. */
  readonly isid: Buffer
  /** Our number of a session that this is a connection for; 0 for a new session. */
  readonly tsih: number
  readonly taskTag: number
  readonly cid: number
  readonly text: Buffer
}

export interface LoginResponse {
  readonly transit: boolean
  readonly moreFollows: boolean
  readonly currentStage: Stage
  readonly nextStage: Stage
  readonly text: Buffer
  /** Set by the response that ends the login. */
  readonly done: boolean
}

/** What logins are checked against. */
export interface LoginRules {
  /** Initiators may write it in capitals or not. */
  readonly targetName: string
  readonly portalGroup: number
  /** In lower case; undefined: everybody may log in. */
  readonly allowedInitiators: ReadonlySet<string> | undefined
  readonly chap: ChapSettings | undefined
  readonly discoveryChap: ChapSettings | undefined
}

const OUR_VERSION = 0
/** iSCSI names are at most this long, RFC 7143 section 4.2.7. */
const MAX_NAME_BYTES = 223
const NAME = /^[\p{L}\p{N}.:_-]+$/u
/** Nobody needs as many; a login that goes on and on ends here. */
const MAX_REQUESTS = 64

/** Said in either stage. */
const GENERAL_KEYS = new Set(['InitiatorName', 'TargetName', 'SessionType', 'InitiatorAlias'])
const SECURITY_KEYS = new Set(['AuthMethod', 'CHAP_A', 'CHAP_N', 'CHAP_R', 'CHAP_I', 'CHAP_C'])

export class Login {
  readonly parameters: Parameters = defaultParameters()
  /** Empty until the first text is complete. */
  initiatorName = ''
  session: SessionKind = 'normal'
  isid: Buffer = Buffer.alloc(0)
  tsih = 0
  cid = 0
  #first: LoginRequest | undefined
  #stage: Stage = STAGE.SECURITY
  #requests = 0
  readonly #said = new Set<string>()
  readonly #input = new TextAssembly()
  /** Of an answer that did not fit into one response. */
  readonly #output = new TextAssembly()
  #authentication: 'open' | 'algorithm' | 'response' | 'done' = 'open'
  #challenge: Challenge | undefined
  #declared = false

  constructor(readonly rules: LoginRules) {}

  /** Throws LoginRefusal. */
  handle(request: LoginRequest): LoginResponse {
    this.#check(request)
    if (!this.#output.isEmpty) return this.#continueAnswer(request)
    this.#addText(request.text)
    if (request.moreFollows) return this.#response(Buffer.alloc(0), undefined)
    const pairs = this.#parse()
    const answers: Pair[] = []
    if (this.initiatorName === '') this.#introduce(pairs, answers)
    if (this.#stage === STAGE.SECURITY) this.#security(pairs, answers)
    else this.#operational(pairs, answers)
    this.#output.add(formatPairs(answers))
    return this.#nextPart(request)
  }

  /** What does not depend on the text. */
  #check(request: LoginRequest): void {
    if (++this.#requests > MAX_REQUESTS) throw initiatorError(`more than ${MAX_REQUESTS} login requests`)
    if (request.versionMin > OUR_VERSION) throw new LoginRefusal(LOGIN_STATUS.UNSUPPORTED_VERSION, `version ${request.versionMin} is not spoken here`)
    const {currentStage, nextStage, transit, moreFollows} = request
    if (this.#first === undefined) this.#begin(request)
    else this.#checkSame(request, this.#first)
    if (currentStage !== this.#stage) throw initiatorError(`a request for stage ${currentStage} in stage ${this.#stage}`)
    if (!transit) return
    if (moreFollows) throw initiatorError('a request that goes on and ends its stage at once')
    const exists = nextStage === STAGE.OPERATIONAL || nextStage === STAGE.FULL_FEATURE
    if (!exists || nextStage <= currentStage) throw initiatorError(`a step from stage ${currentStage} to ${nextStage}`)
  }

  #begin(request: LoginRequest): void {
    this.#first = {...request, isid: Buffer.from(request.isid), text: Buffer.alloc(0)}
    this.isid = this.#first.isid
    this.tsih = request.tsih
    this.cid = request.cid
    if (request.currentStage === STAGE.OPERATIONAL) this.#stage = STAGE.OPERATIONAL
  }

  #checkSame(request: LoginRequest, first: LoginRequest): void {
    const same = request.isid.equals(first.isid) && request.tsih === first.tsih && request.cid === first.cid && request.taskTag === first.taskTag
    if (!same) throw initiatorError('ISID, TSIH, CID or task tag changed during login')
  }

  #addText(text: Buffer): void {
    try {
      this.#input.add(text)
    } catch (error) {
      if (!isKind(error, 'PROTOCOL')) throw error
      throw new LoginRefusal(LOGIN_STATUS.OUT_OF_RESOURCES, error.message)
    }
  }

  #parse(): Pair[] {
    try {
      const pairs = parsePairs(this.#input.take())
      for (const {key} of pairs) {
        if (this.#said.has(key)) throw initiatorError(`${key} is said twice`)
        this.#said.add(key)
      }
      return byDependency(pairs)
    } catch (error) {
      if (!isKind(error, 'PROTOCOL')) throw error
      throw initiatorError(error.message)
    }
  }

  /** The first complete text says who wants what. */
  #introduce(pairs: readonly Pair[], answers: Pair[]): void {
    const valueOf = (key: string): string | undefined => pairs.find(pair => pair.key === key)?.value
    const name = valueOf('InitiatorName')
    if (name === undefined) throw new LoginRefusal(LOGIN_STATUS.MISSING_PARAMETER, 'no InitiatorName')
    if (Buffer.byteLength(name) > MAX_NAME_BYTES || !NAME.test(name)) throw initiatorError('an InitiatorName that is none')
    // Names differ in nothing but case only by mistake: RFC 3722 folds it.
    this.initiatorName = name.toLowerCase()
    const type = valueOf('SessionType') ?? 'Normal'
    if (type !== 'Normal' && type !== 'Discovery') throw new LoginRefusal(LOGIN_STATUS.UNSUPPORTED_SESSION_TYPE, `no SessionType we have`)
    this.session = type === 'Normal' ? 'normal' : 'discovery'
    const {allowedInitiators, targetName, portalGroup} = this.rules
    const wanted = valueOf('TargetName')
    if (this.session === 'normal') {
      if (wanted === undefined) throw new LoginRefusal(LOGIN_STATUS.MISSING_PARAMETER, 'no TargetName')
      if (wanted.toLowerCase() !== targetName.toLowerCase()) throw new LoginRefusal(LOGIN_STATUS.NO_SUCH_TARGET, 'asks for a target that is not here')
      if (allowedInitiators?.has(this.initiatorName) === false) throw new LoginRefusal(LOGIN_STATUS.NOT_ALLOWED, 'is not among the initiators that may log in')
      answers.push({key: 'TargetPortalGroupTag', value: `${portalGroup}`})
    }
    if (this.#chap !== undefined && this.#stage === STAGE.OPERATIONAL) {
      throw new LoginRefusal(LOGIN_STATUS.AUTHENTICATION_FAILED, 'does not want to authenticate, which is required')
    }
  }

  /** What is required of this initiator. */
  get #chap(): ChapSettings | undefined {
    return this.session === 'normal' ? this.rules.chap : this.rules.discoveryChap
  }

  #security(pairs: readonly Pair[], answers: Pair[]): void {
    const security = new Map<string, string>()
    for (const {key, value} of pairs) {
      if (GENERAL_KEYS.has(key)) continue
      if (SECURITY_KEYS.has(key)) security.set(key, value)
      else if (isOperationalKey(key)) throw initiatorError(`${key} in the security stage`)
      else if (!key.startsWith('Target')) answers.push({key, value: 'NotUnderstood'})
    }
    const methods = security.get('AuthMethod')
    if (methods !== undefined) this.#chooseMethod(methods, answers)
    if (this.#authentication === 'algorithm' && security.has('CHAP_A')) this.#ask(security.get('CHAP_A')!, answers)
    else if (this.#authentication === 'response' && security.has('CHAP_R')) this.#verify(security, answers)
    else if ([...security.keys()].some(key => key !== 'AuthMethod')) throw initiatorError('CHAP keys out of order')
  }

  #chooseMethod(list: string, answers: Pair[]): void {
    const methods = list.split(',')
    const method = this.#chap === undefined ? 'None' : 'CHAP'
    if (!methods.includes(method)) throw new LoginRefusal(LOGIN_STATUS.AUTHENTICATION_FAILED, `offers no AuthMethod that will do: ${method} is needed`)
    answers.push({key: 'AuthMethod', value: method})
    this.#authentication = method === 'None' ? 'done' : 'algorithm'
  }

  #ask(algorithms: string, answers: Pair[]): void {
    const algorithm = chooseAlgorithm(algorithms)
    if (algorithm === undefined) throw new LoginRefusal(LOGIN_STATUS.AUTHENTICATION_FAILED, 'CHAP with algorithms that are not known here')
    this.#challenge = new Challenge(algorithm)
    answers.push({key: 'CHAP_A', value: algorithm})
    answers.push({key: 'CHAP_I', value: `${this.#challenge.identifier}`})
    answers.push({key: 'CHAP_C', value: formatBinary(this.#challenge.bytes)})
    this.#authentication = 'response'
  }

  #verify(said: ReadonlyMap<string, string>, answers: Pair[]): void {
    const challenge = this.#challenge!
    const {initiator, target} = this.#chap!
    const response = parseBinary(said.get('CHAP_R') ?? '')
    if (response === undefined || !challenge.isAnsweredBy(said.get('CHAP_N') ?? '', response, initiator)) {
      throw new LoginRefusal(LOGIN_STATUS.AUTHENTICATION_FAILED, 'CHAP: wrong name or secret')
    }
    if (said.has('CHAP_I') || said.has('CHAP_C')) {
      const identifier = Number(said.get('CHAP_I') || NaN)
      const theirs = parseBinary(said.get('CHAP_C') ?? '')
      if (!Number.isInteger(identifier) || identifier < 0 || identifier > 255 || theirs === undefined) throw initiatorError('CHAP: a challenge that is none')
      if (target === undefined) throw new LoginRefusal(LOGIN_STATUS.AUTHENTICATION_FAILED, 'CHAP: wants proof from the target, which has no secret')
      if (theirs.equals(challenge.bytes)) throw new LoginRefusal(LOGIN_STATUS.AUTHENTICATION_FAILED, 'CHAP: sends our own challenge back')
      answers.push({key: 'CHAP_N', value: target.name})
      answers.push({key: 'CHAP_R', value: formatBinary(chapResponse(challenge.algorithm, identifier, target.secret, theirs))})
    }
    this.#authentication = 'done'
  }

  #operational(pairs: readonly Pair[], answers: Pair[]): void {
    for (const pair of pairs) {
      if (GENERAL_KEYS.has(pair.key)) continue
      if (SECURITY_KEYS.has(pair.key)) throw initiatorError(`${pair.key} in the operational stage`)
      let value: string | undefined
      try {
        value = negotiate(pair, this.parameters, this.session)
      } catch (error) {
        if (!isKind(error, 'PROTOCOL')) throw error
        throw initiatorError(error.message)
      }
      if (value !== undefined) answers.push({key: pair.key, value})
    }
    if (this.#declared) return
    this.#declared = true
    this.parameters.maxReceiveSegment = RECEIVE_SEGMENT_BYTES
    answers.push({key: 'MaxRecvDataSegmentLength', value: `${RECEIVE_SEGMENT_BYTES}`})
  }

  /** True when the stage can end here, as the initiator asks. */
  #mayTransit({transit}: LoginRequest): boolean {
    if (!transit) return false
    if (this.#stage !== STAGE.SECURITY || this.#authentication === 'done') return true
    if (this.#authentication !== 'open') return false
    if (this.#chap !== undefined) throw new LoginRefusal(LOGIN_STATUS.AUTHENTICATION_FAILED, 'does not want to authenticate, which is required')
    return true
  }

  /** The initiator asks for the rest of an answer by requests without text. */
  #continueAnswer(request: LoginRequest): LoginResponse {
    if (request.text.length > 0 || request.moreFollows) throw initiatorError('a request in the middle of an answer')
    return this.#nextPart(request)
  }

  #nextPart(request: LoginRequest): LoginResponse {
    const part = this.#output.next(DEFAULT_SEGMENT_BYTES)
    if (!this.#output.isEmpty) return {...this.#response(part, undefined), moreFollows: true}
    return this.#response(part, this.#mayTransit(request) ? (request.nextStage as Stage) : undefined)
  }

  #response(text: Buffer, transit: Stage | undefined): LoginResponse {
    const currentStage = this.#stage
    if (transit !== undefined) this.#stage = transit
    if (transit === STAGE.FULL_FEATURE) this.parameters.firstBurst = Math.min(this.parameters.firstBurst, this.parameters.maxBurst)
    const nextStage = transit ?? STAGE.SECURITY
    return {transit: transit !== undefined, moreFollows: false, currentStage, nextStage, text, done: transit === STAGE.FULL_FEATURE}
  }
}

function initiatorError(message: string): LoginRefusal {
  return new LoginRefusal(LOGIN_STATUS.INITIATOR_ERROR, message)
}

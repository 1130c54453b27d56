// The operational keys of RFC 7143 section 13 and how each is answered: one table, and a function per kind of value.
import {LonghornError} from '../../../../lib/errors.js'
import {parseNumber, type Pair} from './text.js'

/** What holds for a session once its login is over; the values are those that hold when nobody says anything. */
export interface Parameters {
  headerDigest: boolean
  dataDigest: boolean
  /** Bytes of data that the initiator takes in one PDU, and that we have said we take. */
  maxSendSegment: number
  maxReceiveSegment: number
  /** Bytes of one sequence of data PDUs. */
  maxBurst: number
  /** Bytes that a command may send without being asked. */
  firstBurst: number
  initialR2T: boolean
  immediateData: boolean
  maxOutstandingR2T: number
}

export function defaultParameters(): Parameters {
  return {
    headerDigest: false,
    dataDigest: false,
    maxSendSegment: DEFAULT_SEGMENT_BYTES,
    maxReceiveSegment: DEFAULT_SEGMENT_BYTES,
    maxBurst: 262144,
    firstBurst: 65536,
    initialR2T: true,
    immediateData: true,
    maxOutstandingR2T: 1,
  }
}

export type SessionKind = 'normal' | 'discovery'

/** What is taken in one PDU when nothing was declared, and by both sides during login. */
export const DEFAULT_SEGMENT_BYTES = 8192
/** Ours: what the device takes in one piece, so that a large write is passed on PDU by PDU. */
export const RECEIVE_SEGMENT_BYTES = 128 * 1024
const MAX_BURST_BYTES = 1024 * 1024
const FIRST_BURST_BYTES = 256 * 1024
/** More of them gain nothing when one asks for a megabyte. */
const MAX_R2T = 4

const SMALLEST_SEGMENT = 512
const LARGEST_SEGMENT = 16777215

/** How a key is answered. */
type Rule =
  /** The first value of the initiator's list that is also in ours. */
  | {readonly kind: 'list'; readonly ours: readonly string[]; readonly set?: (to: Parameters, value: string) => void}
  /** Yes if both say it, or if one does. */
  | {readonly kind: 'and' | 'or'; readonly ours: boolean; readonly set?: (to: Parameters, value: boolean) => void}
  /** The smaller or the larger of both. */
  | {readonly kind: 'min' | 'max'; readonly ours: number; readonly from: number; readonly to: number; readonly set?: (to: Parameters, value: number) => void}
  /** A number that is told and not answered. */
  | {readonly kind: 'declared'; readonly from: number; readonly to: number; readonly set: (to: Parameters, value: number) => void}
  /** Text that is told and not answered. */
  | {readonly kind: 'name'}
  /** Obsolete: an answer that needs no thought. */
  | {readonly kind: 'constant'; readonly answer: string}

interface KeyRule {
  readonly rule: Rule
  /** Meaningless in a discovery session, where it is answered with Irrelevant. */
  readonly normalOnly?: boolean
  /** May also be declared in the full feature phase. */
  readonly always?: boolean
}

const DIGESTS = ['CRC32C', 'None'] as const

const KEYS: Readonly<Record<string, KeyRule>> = {
  HeaderDigest: {rule: {kind: 'list', ours: DIGESTS, set: (to, value) => (to.headerDigest = value === 'CRC32C')}},
  DataDigest: {rule: {kind: 'list', ours: DIGESTS, set: (to, value) => (to.dataDigest = value === 'CRC32C')}},
  MaxConnections: {rule: {kind: 'min', ours: 1, from: 1, to: 65535}, normalOnly: true},
  InitialR2T: {rule: {kind: 'or', ours: false, set: (to, value) => (to.initialR2T = value)}, normalOnly: true},
  ImmediateData: {rule: {kind: 'and', ours: true, set: (to, value) => (to.immediateData = value)}, normalOnly: true},
  MaxRecvDataSegmentLength: {
    rule: {kind: 'declared', from: SMALLEST_SEGMENT, to: LARGEST_SEGMENT, set: (to, value) => (to.maxSendSegment = value)},
    always: true,
  },
  MaxBurstLength: {
    rule: {kind: 'min', ours: MAX_BURST_BYTES, from: SMALLEST_SEGMENT, to: LARGEST_SEGMENT, set: (to, value) => (to.maxBurst = value)},
    normalOnly: true,
  },
  FirstBurstLength: {
    rule: {kind: 'min', ours: FIRST_BURST_BYTES, from: SMALLEST_SEGMENT, to: LARGEST_SEGMENT, set: (to, value) => (to.firstBurst = value)},
    normalOnly: true,
  },
  DefaultTime2Wait: {rule: {kind: 'max', ours: 0, from: 0, to: 3600}},
  // A session ends with its connection, so there is nothing to come back to.
  DefaultTime2Retain: {rule: {kind: 'min', ours: 0, from: 0, to: 3600}},
  MaxOutstandingR2T: {rule: {kind: 'min', ours: MAX_R2T, from: 1, to: 65535, set: (to, value) => (to.maxOutstandingR2T = value)}, normalOnly: true},
  // Data in order is what everybody does; a Yes of one side decides.
  DataPDUInOrder: {rule: {kind: 'or', ours: true}, normalOnly: true},
  DataSequenceInOrder: {rule: {kind: 'or', ours: true}, normalOnly: true},
  ErrorRecoveryLevel: {rule: {kind: 'min', ours: 0, from: 0, to: 2}},
  TaskReporting: {rule: {kind: 'list', ours: ['RFC3720']}, normalOnly: true},
  // RFC 7144.
  iSCSIProtocolLevel: {rule: {kind: 'min', ours: 1, from: 0, to: 31}, normalOnly: true},
  InitiatorAlias: {rule: {kind: 'name'}, always: true},
  IFMarker: {rule: {kind: 'constant', answer: 'No'}},
  OFMarker: {rule: {kind: 'constant', answer: 'No'}},
  IFMarkInt: {rule: {kind: 'constant', answer: 'Reject'}},
  OFMarkInt: {rule: {kind: 'constant', answer: 'Reject'}},
}

/** Keys that only a target declares: an initiator that mentions them answers ours. */
const OURS = new Set(['TargetAlias', 'TargetAddress', 'TargetPortalGroupTag'])
/** What may be said about a key instead of a value. */
const RESERVED = new Set(['NotUnderstood', 'Irrelevant', 'Reject'])

/** Decided in a login and never again. */
const LOGIN_ONLY = new Set(['AuthMethod', 'CHAP_A', 'CHAP_C', 'CHAP_I', 'CHAP_N', 'CHAP_R', 'InitiatorName', 'SessionType', 'TargetName'])

/** True for a key that may be negotiated in the operational stage of a login. */
export function isOperationalKey(key: string): boolean {
  return Object.hasOwn(KEYS, key)
}

/** True for a key that RFC 7143 or one of its companions gives a meaning, in whatever phase. */
export function isStandardKey(key: string): boolean {
  return isOperationalKey(key) || LOGIN_ONLY.has(key) || OURS.has(key)
}

/**
 * Takes what an initiator says of one operational key into `parameters`. Gives the answer, or undefined when there is none
 * to give. Throws PROTOCOL for a declaration that nothing can be made of.
 */
export function negotiate({key, value}: Pair, parameters: Parameters, session: SessionKind): string | undefined {
  if (!Object.hasOwn(KEYS, key)) return OURS.has(key) ? undefined : 'NotUnderstood'
  if (RESERVED.has(value)) return undefined
  const {rule, normalOnly} = KEYS[key]!
  if (normalOnly === true && session === 'discovery') return 'Irrelevant'
  if (key === 'FirstBurstLength' && parameters.initialR2T && !parameters.immediateData) return 'Irrelevant'
  const answer = decide(rule, key, value, parameters)
  if (key !== 'FirstBurstLength' || answer === 'Reject') return answer
  parameters.firstBurst = Math.min(parameters.firstBurst, parameters.maxBurst)
  return `${parameters.firstBurst}`
}

/** As negotiate(), for a Text Request in the full feature phase, where few keys may still be changed. */
export function renegotiate(pair: Pair, parameters: Parameters, session: SessionKind): string | undefined {
  const known = Object.hasOwn(KEYS, pair.key) ? KEYS[pair.key] : undefined
  const tooLate = known !== undefined && known.always !== true && known.rule.kind !== 'constant'
  if (tooLate || LOGIN_ONLY.has(pair.key)) return RESERVED.has(pair.value) ? undefined : 'Reject'
  return negotiate(pair, parameters, session)
}

/** The order in which keys of one text are decided: others depend on the first of these. */
export function byDependency(pairs: readonly Pair[]): Pair[] {
  const isLast = ({key}: Pair): number => Number(key === 'FirstBurstLength')
  return pairs.toSorted((a, b) => isLast(a) - isLast(b))
}

function decide(rule: Rule, key: string, value: string, parameters: Parameters): string | undefined {
  switch (rule.kind) {
    case 'list': {
      const chosen = value.split(',').find(one => rule.ours.includes(one))
      if (chosen === undefined) return 'Reject'
      rule.set?.(parameters, chosen)
      return chosen
    }
    case 'and':
    case 'or': {
      if (value !== 'Yes' && value !== 'No') return 'Reject'
      const theirs = value === 'Yes'
      const result = rule.kind === 'and' ? theirs && rule.ours : theirs || rule.ours
      rule.set?.(parameters, result)
      return result ? 'Yes' : 'No'
    }
    case 'min':
    case 'max': {
      const theirs = parseNumber(value)
      if (theirs === undefined || theirs < rule.from || theirs > rule.to) return 'Reject'
      const result = rule.kind === 'min' ? Math.min(theirs, rule.ours) : Math.max(theirs, rule.ours)
      rule.set?.(parameters, result)
      return `${result}`
    }
    case 'declared': {
      const theirs = parseNumber(value)
      if (theirs === undefined || theirs < rule.from || theirs > rule.to) {
        throw new LonghornError('PROTOCOL', `${key} is not a number from ${rule.from} to ${rule.to}`)
      }
      rule.set(parameters, theirs)
      return undefined
    }
    case 'name':
      return undefined
    case 'constant':
      return rule.answer
  }
}

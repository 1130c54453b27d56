// Text Requests in the full feature phase: SendTargets, and the few keys that may still be negotiated then. A text may need
// several PDUs either way; a target transfer tag holds such an exchange together.
import {isKind, LonghornError} from '../../../../lib/errors.js'
import {byDependency, isStandardKey, renegotiate, type Parameters, type SessionKind} from './negotiation.js'
import {NO_TAG, REJECT, RESPONSE, TEXT_FLAG, type IncomingPdu, type RejectReason} from './pdu.js'
import type {PduWriter} from './pdu-writer.js'
import {formatPairs, isNodeName, parsePairs, TextAssembly, type Pair} from './text.js'

/** What SendTargets tells. */
export interface TargetListing {
  readonly name: string
  /** `HOST:PORT,GROUP`; undefined: nobody knows how this connection reached us. */
  readonly address: string | undefined
}

export interface TextContext {
  readonly writer: PduWriter
  readonly session: SessionKind
  readonly parameters: Parameters
  /** The target, or undefined when this initiator would not be let in. */
  readonly listing: TargetListing | undefined
  reject(pdu: IncomingPdu, reason: RejectReason, why: string): void
}

export class TextExchange {
  readonly #input = new TextAssembly()
  readonly #output = new TextAssembly()
  /** Of the exchange that is under way. */
  #tag = NO_TAG
  #taskTag = NO_TAG
  #nextTag = 1

  constructor(readonly context: TextContext) {}

  handle(pdu: IncomingPdu): void {
    const {taskTag} = pdu
    const tag = pdu.word20
    if (taskTag === NO_TAG) return this.#refuse(pdu, REJECT.INVALID_FIELD, 'a text request without a task tag')
    if (tag === NO_TAG) this.#start(taskTag)
    else if (tag !== this.#tag || taskTag !== this.#taskTag) return this.#refuse(pdu, REJECT.INVALID_FIELD, 'a text request that continues nothing')
    const moreFollows = (pdu.flags & TEXT_FLAG.CONTINUE) !== 0
    if (moreFollows && pdu.isFinal) return this.#refuse(pdu, REJECT.INVALID_FIELD, 'a text request that goes on and ends at once')
    try {
      this.#input.add(pdu.data)
      if (!moreFollows) this.#decide(parsePairs(this.#input.take()))
    } catch (error) {
      if (!isKind(error, 'PROTOCOL')) throw error
      return this.#refuse(pdu, REJECT.PROTOCOL, error.message)
    }
    this.#respond(pdu, moreFollows)
  }

  #start(taskTag: number): void {
    this.#input.clear()
    this.#output.clear()
    this.#taskTag = taskTag
    this.#tag = NO_TAG
  }

  /** Throws PROTOCOL for what gets a Reject in place of an answer. */
  #decide(pairs: readonly Pair[]): void {
    if (pairs.length > 0 && pairs.every(isNoKey)) throw new LonghornError('PROTOCOL', 'a text of keys that do not exist')
    const answers: Pair[] = []
    for (const pair of byDependency(pairs)) {
      if (pair.key === 'SendTargets') {
        answers.push(...this.#sendTargets(pair.value))
        continue
      }
      const value = renegotiate(pair, this.context.parameters, this.context.session)
      if (value !== undefined) answers.push({key: pair.key, value})
    }
    this.#output.add(formatPairs(answers))
  }

  /**
   * `All`, a name, or nothing, which means the target of a normal session. RFC 7143 has `All` for discovery sessions only;
   * initiators ask for it in others too, and there it can tell nothing that the session does not know: there is one target.
   */
  #sendTargets(wanted: string): Pair[] {
    const {listing, session} = this.context
    if (wanted === '' && session === 'discovery') return [{key: 'SendTargets', value: 'Reject'}]
    const isGeneral = wanted === 'All' || wanted === ''
    if (!isGeneral && !isNodeName(wanted)) throw new LonghornError('PROTOCOL', 'SendTargets of what is no name of a target')
    if (listing === undefined || !(isGeneral || wanted.toLowerCase() === listing.name.toLowerCase())) return []
    const name = {key: 'TargetName', value: listing.name}
    return listing.address === undefined ? [name] : [name, {key: 'TargetAddress', value: listing.address}]
  }

  #respond(pdu: IncomingPdu, awaitsMore: boolean): void {
    const {writer, parameters} = this.context
    const text = awaitsMore ? Buffer.alloc(0) : this.#output.next(Math.min(parameters.maxSendSegment, MOST_TEXT_BYTES))
    const moreFollows = !this.#output.isEmpty
    // Only an answer that is complete to a request that is the last ends it.
    const isFinal = pdu.isFinal && !awaitsMore && !moreFollows
    this.#tag = isFinal ? NO_TAG : this.#newTag()
    writer.control(
      {
        opcode: RESPONSE.TEXT,
        flags: (isFinal ? TEXT_FLAG.TRANSIT : 0) | (moreFollows ? TEXT_FLAG.CONTINUE : 0),
        lunHigh: pdu.lunHigh,
        lunLow: pdu.lunLow,
        taskTag: pdu.taskTag,
        word20: this.#tag,
        statSN: 'next',
      },
      text,
    )
    if (isFinal) this.#taskTag = NO_TAG
  }

  #newTag(): number {
    this.#nextTag = (this.#nextTag + 1) & 0x7fffffff
    return this.#nextTag
  }

  #refuse(pdu: IncomingPdu, reason: RejectReason, why: string): void {
    this.#start(NO_TAG)
    this.context.reject(pdu, reason, why)
  }
}

/**
 * Neither a key of the standards nor an extension (`X-` or `X#`). Among others one is answered NotUnderstood; a request of nothing
 * else was not meant for this, and is rejected as other targets do.
 */
function isNoKey({key}: Pair): boolean {
  return key !== 'SendTargets' && !isStandardKey(key) && !/^X[-#]/.test(key)
}

/** What is sent in one PDU, whatever the initiator would take. */
const MOST_TEXT_BYTES = 8192

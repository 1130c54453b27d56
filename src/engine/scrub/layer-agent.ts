import {parseAddress, type TcpAddress} from '../../lib/address.js'
import {LonghornError} from '../../lib/errors.js'
import {FEATURE} from '../../protocol/frame.js'
import {connect, type RpcClient} from '../../protocol/grpc/client.js'
import {toSize} from '../../protocol/grpc/fields.js'
import {SyncAgentServiceDefinition} from '../../protocol/proto/generated/sync-agent.js'
import {BLOCK_FLAG, BLOCKS_PER_REGION, DIGEST_BYTES, HEAL_OUTCOME} from '../../protocol/scrub-units.js'
import type {ReplicaLink} from '../replica-link.js'
import {offsetOf, unhealed, type Repair, type Unhealed} from './repair.js'
import type {BlockCopy} from './verdict.js'

const CALL_TIMEOUT_MS = 600_000
/** As the digest of a block that cannot be read. */
const UNREADABLE = Buffer.alloc(DIGEST_BYTES)
/** Characters of what a replica says about one block. */
const MOST_REASON = 1000

/** What one replica says of its frozen layers. Errors are those of the calls, and PROTOCOL for answers that make no sense. */
export class LayerAgent {
  readonly #rpc: RpcClient<typeof SyncAgentServiceDefinition>
  readonly #verified = new Map<string, Promise<boolean>>()

  constructor(
    readonly link: ReplicaLink,
    volumeName: string,
    readonly signal: AbortSignal,
  ) {
    const address = parseAddress(link.address) as TcpAddress
    this.#rpc = connect(SyncAgentServiceDefinition, {
      peer: 'sync agent',
      address: {...address, port: address.port + 2},
      identity: {volumeName},
      timeoutMs: CALL_TIMEOUT_MS,
    })
  }

  async isPurging(): Promise<boolean> {
    return (await this.#rpc.snapshotPurgeStatus({}, {signal: this.signal})).isPurging
  }

  /** For each of `count` regions its state and digest as text, and the size of the layer's file. */
  async regions(layer: string, first: number, count: number): Promise<{sizeBytes: number; regions: string[]}> {
    const {size, states, digests} = await this.#rpc.layerDigests({layer, first: BigInt(first), count}, {signal: this.signal})
    if (states.length !== count || digests.length !== count * DIGEST_BYTES) throw this.#nonsense('digests')
    const regions = Array.from(states, (state, index) => `${state}${hex(digests, index)}`)
    return {sizeBytes: toSize(size, 'LayerDigests: size', 'PROTOCOL'), regions}
  }

  /** What it reads in each block of a region. */
  async blocks(layer: string, region: number, replica: number): Promise<BlockCopy[]> {
    const {flags, digests} = await this.#rpc.layerBlocks({layer, region: BigInt(region)}, {signal: this.signal})
    if (flags.length !== BLOCKS_PER_REGION || digests.length !== BLOCKS_PER_REGION * DIGEST_BYTES) throw this.#nonsense('block digests')
    return Array.from(flags, (flag, index) => ({
      replica,
      digest: (flag & BLOCK_FLAG.UNREADABLE) === 0 ? hex(digests, index) : undefined,
      held: (flag & BLOCK_FLAG.HELD) !== 0,
      visible: (flag & BLOCK_FLAG.VISIBLE) !== 0,
    }))
  }

  async read(layer: string, offset: number, length: number): Promise<Buffer> {
    const {data} = await this.#rpc.layerRead({layer, offset: BigInt(offset), length}, {signal: this.signal})
    if (data.length !== length) throw this.#nonsense('data')
    return Buffer.from(data)
  }

  /** Rewrites blocks of a region, ascending. For each, in their order: why not, or undefined when it is healed. */
  async heal(layer: string, region: number, repairs: readonly Repair[]): Promise<(Unhealed | undefined)[]> {
    if (this.link.features.includes(FEATURE.SCRUB_RUNS)) return this.#healTogether(layer, region, repairs)
    const results: (Unhealed | undefined)[] = []
    for (const repair of repairs) results.push(await this.#healAlone(layer, region, repair))
    return results
  }

  async #healTogether(layer: string, region: number, repairs: readonly Repair[]): Promise<(Unhealed | undefined)[]> {
    const which = Buffer.alloc(BLOCKS_PER_REGION)
    for (const {block} of repairs) which[block] = 1
    const request = {
      layer,
      region: BigInt(region),
      which,
      data: Buffer.concat(repairs.map(({data}) => data)),
      expected: Buffer.concat(repairs.map(({now}) => now ?? UNREADABLE)),
      digests: Buffer.concat(repairs.map(({digest}) => digest)),
    }
    const {outcomes, reasons} = await this.#rpc.layerHealBlocks(request, {signal: this.signal})
    let failures = 0
    const results = Array.from(outcomes, outcome => {
      if (outcome === HEAL_OUTCOME.HEALED) return undefined
      return {reason: (reasons[failures++] ?? '').slice(0, MOST_REASON), diskFailed: outcome !== HEAL_OUTCOME.CHANGED}
    })
    if (results.length !== repairs.length || failures !== reasons.length || outcomes.some(outcome => outcome > HEAL_OUTCOME.NO_SPACE)) throw this.#nonsense('outcomes')
    return results
  }

  /** As replicas want it that cannot do more at once. */
  async #healAlone(layer: string, region: number, {block, data, now}: Repair): Promise<Unhealed | undefined> {
    try {
      await this.#rpc.layerHeal({layer, offset: BigInt(offsetOf(region, block)), data, expected: now ?? UNREADABLE}, {signal: this.signal})
      return undefined
    } catch (error) {
      this.signal.throwIfAborted()
      return unhealed(error)
    }
  }

  /** The layer's recorded checksum still holds. Reads the layer, once. */
  verified(layer: string): Promise<boolean> {
    let verified = this.#verified.get(layer)
    if (verified === undefined) {
      verified = this.#rpc.layerVerify({layer}, {signal: this.signal, timeoutMs: Infinity}).then(({recorded, matches}) => recorded && matches)
      this.#verified.set(layer, verified)
    }
    return verified
  }

  close(): void {
    this.#rpc.destroy()
  }

  #nonsense(what: string): LonghornError {
    return new LonghornError('PROTOCOL', `replica ${this.link.address}: ${what} of another size than was asked for`)
  }
}

function hex(digests: Uint8Array, index: number): string {
  return Buffer.from(digests.buffer, digests.byteOffset + index * DIGEST_BYTES, DIGEST_BYTES).toString('hex')
}

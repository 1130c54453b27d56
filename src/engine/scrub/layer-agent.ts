import {parseAddress, type TcpAddress} from '../../lib/address.js'
import {LonghornError} from '../../lib/errors.js'
import {connect, type RpcClient} from '../../protocol/grpc/client.js'
import {toSize} from '../../protocol/grpc/fields.js'
import {SyncAgentServiceDefinition} from '../../protocol/proto/generated/sync-agent.js'
import {BLOCK_FLAG, BLOCKS_PER_REGION, DIGEST_BYTES} from '../../protocol/scrub-units.js'
import type {ReplicaLink} from '../replica-link.js'
import type {BlockCopy} from './verdict.js'

const CALL_TIMEOUT_MS = 600_000

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

  async heal(layer: string, offset: number, data: Buffer, expected: Buffer): Promise<void> {
    await this.#rpc.layerHeal({layer, offset: BigInt(offset), data, expected}, {signal: this.signal})
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

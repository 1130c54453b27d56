import {createHash} from 'node:crypto'
import {messageOf} from '../../lib/errors.js'
import {BLOCK_BYTES, BLOCKS_PER_REGION, DIGEST_BYTES, REGION_BYTES} from '../../protocol/scrub-units.js'
import type {LayerAgent} from './layer-agent.js'
import {judge, type BlockCopy, type Verdict} from './verdict.js'

/** A range of a layer in which replicas differ. */
export interface Finding {
  readonly layer: string
  readonly offset: number
  readonly length: number
  /** The address of the one that is wrong; empty when nobody can tell. */
  readonly replica: string
  readonly healed: boolean
  /** Why it was not healed. */
  readonly reason: string
  /** The replica's disk refused it. */
  readonly diskFailed: boolean
}

/** Finds out which blocks of a region differ for somebody who reads them, who is right, and makes the others right. */
export async function healRegion(agents: readonly LayerAgent[], layer: string, region: number): Promise<Finding[]> {
  const copies = await Promise.all(agents.map((agent, replica) => agent.blocks(layer, region, replica)))
  const of = (block: number): BlockCopy[] => copies.map(blocks => blocks[block]!)
  const verdicts = Array.from({length: BLOCKS_PER_REGION}, (_, block) => judge(of(block)))
  if (verdicts.some(({kind}) => kind === 'unknown')) {
    const proven = new Set<number>()
    for (const [replica, agent] of agents.entries()) if (await agent.verified(layer)) proven.add(replica)
    for (const [block, {kind}] of verdicts.entries()) if (kind === 'unknown') verdicts[block] = judge(of(block), proven)
  }
  const findings: Finding[] = []
  for (let block = 0; block < BLOCKS_PER_REGION; block++) {
    const verdict = verdicts[block]!
    const at = {layer, offset: region * REGION_BYTES + block * BLOCK_BYTES, length: BLOCK_BYTES, diskFailed: false}
    if (verdict.kind === 'same') continue
    if (verdict.kind === 'unknown') findings.push({...at, replica: '', healed: false, reason: whyUnknown(verdict)})
    else for (const bad of verdict.bad) findings.push({...at, replica: agents[bad.replica]!.link.address, ...(await healBlock(agents, verdict.good, bad, at))})
  }
  return joined(findings)
}

function whyUnknown({copies}: Extract<Verdict, {kind: 'unknown'}>): string {
  if (copies.every(({digest}) => digest === undefined)) return 'no replica can read it'
  return 'there is no majority, and no recorded checksum says which replica is right'
}

type Healed = Pick<Finding, 'healed' | 'reason' | 'diskFailed'>

async function healBlock(agents: readonly LayerAgent[], good: number, bad: BlockCopy, {layer, offset}: Pick<Finding, 'layer' | 'offset'>): Promise<Healed> {
  const failed = (reason: string, diskFailed = false): Healed => ({healed: false, reason, diskFailed})
  if (!bad.held) return failed('the replica lacks the block, its layer has a hole there')
  let data: Buffer
  try {
    data = await agents[good]!.read(layer, offset, BLOCK_BYTES)
  } catch (error) {
    return failed(messageOf(error))
  }
  try {
    const expected = bad.digest === undefined ? Buffer.alloc(DIGEST_BYTES) : Buffer.from(bad.digest, 'hex')
    if (createHash('sha256').update(data).digest('hex') === bad.digest) return failed('it has changed since it was compared')
    await agents[bad.replica]!.heal(layer, offset, data, expected)
    return {healed: true, reason: '', diskFailed: false}
  } catch (error) {
    agents[good]!.signal.throwIfAborted()
    return failed(messageOf(error), isDiskFailure(error))
  }
}

function isDiskFailure(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'LH_IO' || error.code === 'LH_NO_SPACE')
}

/** Neighbouring blocks with the same fate as one. */
function joined(findings: readonly Finding[]): Finding[] {
  const result: Finding[] = []
  for (const finding of findings) {
    const at = result.findIndex(one => one.offset + one.length === finding.offset && one.replica === finding.replica && one.reason === finding.reason && one.healed === finding.healed)
    if (at === -1) result.push(finding)
    else result[at] = {...result[at]!, length: result[at]!.length + finding.length}
  }
  return result
}

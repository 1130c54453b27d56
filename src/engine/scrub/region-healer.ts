import {BLOCK_BYTES, BLOCKS_PER_REGION} from '../../protocol/scrub-units.js'
import {readGood, type GoodBlock, type Wanted} from './good-blocks.js'
import type {LayerAgent} from './layer-agent.js'
import {offsetOf, unhealed, type Repair, type Unhealed} from './repair.js'
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

type Wrong = Extract<Verdict, {kind: 'wrong'}>

/** What becomes of the bad blocks of one replica, by their numbers; undefined for one that is healed. */
type Outcomes = Map<number, Unhealed | undefined>

/**
 * Finds out which blocks of a region differ for somebody who reads them, who is right, and makes the others right: the good blocks are read in runs, once for
 * all who need them, and each replica is given all of its own with one call.
 */
export async function healRegion(agents: readonly LayerAgent[], layer: string, region: number): Promise<Finding[]> {
  const copies = await Promise.all(agents.map((agent, replica) => agent.blocks(layer, region, replica)))
  const verdicts = await judged(agents, layer, copies)
  const wrong = new Map<number, Wrong>()
  for (const [block, verdict] of verdicts.entries()) if (verdict.kind === 'wrong') wrong.set(block, verdict)
  const good = await goodBlocks(agents, layer, region, wrong, copies)
  const outcomes: Outcomes[] = []
  for (const [replica, agent] of agents.entries()) outcomes.push(await heal(agent, layer, region, replica, wrong, good))
  const findings: Finding[] = []
  for (const [block, verdict] of verdicts.entries()) {
    if (verdict.kind === 'same') continue
    const at = {layer, offset: offsetOf(region, block), length: BLOCK_BYTES}
    if (verdict.kind === 'unknown') {
      findings.push({...at, replica: '', healed: false, reason: whyUnknown(verdict), diskFailed: false})
      continue
    }
    for (const bad of verdict.bad) {
      const why = outcomes[bad.replica]!.get(block)
      findings.push({...at, replica: agents[bad.replica]!.link.address, healed: why === undefined, ...(why ?? {reason: '', diskFailed: false})})
    }
  }
  return joined(findings)
}

async function judged(agents: readonly LayerAgent[], layer: string, copies: readonly (readonly BlockCopy[])[]): Promise<Verdict[]> {
  const of = (block: number): BlockCopy[] => copies.map(blocks => blocks[block]!)
  const verdicts = Array.from({length: BLOCKS_PER_REGION}, (_, block) => judge(of(block)))
  if (!verdicts.some(({kind}) => kind === 'unknown')) return verdicts
  const proven = new Set<number>()
  for (const [replica, agent] of agents.entries()) if (await agent.verified(layer)) proven.add(replica)
  return verdicts.map((verdict, block) => (verdict.kind === 'unknown' ? judge(of(block), proven) : verdict))
}

function whyUnknown({copies}: Extract<Verdict, {kind: 'unknown'}>): string {
  if (copies.every(({digest}) => digest === undefined)) return 'no replica can read it'
  return 'there is no majority, and no recorded checksum says which replica is right'
}

/** Those that somebody is to be given, each from the replica that is right about it. */
async function goodBlocks(
  agents: readonly LayerAgent[],
  layer: string,
  region: number,
  wrong: ReadonlyMap<number, Wrong>,
  copies: readonly (readonly BlockCopy[])[],
): Promise<Map<number, GoodBlock>> {
  const found = new Map<number, GoodBlock>()
  for (const [replica, agent] of agents.entries()) {
    const wanted: Wanted[] = []
    for (const [block, {good, digest, bad}] of wrong) if (good === replica && bad.some(({held}) => held)) wanted.push({block, digest})
    for (const [block, one] of await readGood(agent, layer, region, wanted, copies[replica]!)) found.set(block, one)
  }
  return found
}

async function heal(agent: LayerAgent, layer: string, region: number, replica: number, wrong: ReadonlyMap<number, Wrong>, good: ReadonlyMap<number, GoodBlock>): Promise<Outcomes> {
  const outcomes: Outcomes = new Map()
  const failed = (block: number, reason: string): unknown => outcomes.set(block, {reason, diskFailed: false})
  const repairs: Repair[] = []
  for (const [block, {digest, bad}] of wrong) {
    const copy = bad.find(one => one.replica === replica)
    if (copy === undefined) continue
    const one = good.get(block)
    if (!copy.held || one === undefined) failed(block, 'the replica lacks the block, its layer has a hole there')
    else if ('reason' in one) failed(block, one.reason)
    else repairs.push({block, data: one.data, digest: Buffer.from(digest, 'hex'), now: copy.digest === undefined ? undefined : Buffer.from(copy.digest, 'hex')})
  }
  if (repairs.length === 0) return outcomes
  try {
    const results = await agent.heal(layer, region, repairs)
    for (const [index, {block}] of repairs.entries()) outcomes.set(block, results[index])
  } catch (error) {
    agent.signal.throwIfAborted()
    for (const {block} of repairs) outcomes.set(block, unhealed(error))
  }
  return outcomes
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

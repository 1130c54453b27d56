// What replicas and engine compare layers in; see LayerDigests and LayerBlocks in sync-agent.proto.

export const BLOCK_BYTES = 4096
/** A region is compared by one digest, and is the most that one message carries. */
export const REGION_BYTES = 1024 * 1024
export const BLOCKS_PER_REGION = REGION_BYTES / BLOCK_BYTES
/** SHA-256. */
export const DIGEST_BYTES = 32
/** The most regions that one LayerDigests is asked for. */
export const MOST_REGIONS = 1024

export const REGION_STATE = {EMPTY: 0, DATA: 1, UNREADABLE: 2} as const
export const BLOCK_FLAG = {HELD: 1, VISIBLE: 2, UNREADABLE: 4} as const
/** What became of a block that LayerHealBlocks was given. */
export const HEAL_OUTCOME = {HEALED: 0, CHANGED: 1, DISK_FAILED: 2, NO_SPACE: 3} as const

/** Blocks one after the other. */
export interface BlockRun {
  readonly first: number
  readonly count: number
}

/** Blocks that are given in ascending order as runs; each one follows the one before it when it is its neighbour and `joins` agrees. */
export function runsOf(blocks: readonly number[], joins: (run: BlockRun, block: number) => boolean = () => true): BlockRun[] {
  const runs: BlockRun[] = []
  for (const block of blocks) {
    const last = runs.at(-1)
    if (last !== undefined && last.first + last.count === block && joins(last, block)) runs[runs.length - 1] = {first: last.first, count: last.count + 1}
    else runs.push({first: block, count: 1})
  }
  return runs
}

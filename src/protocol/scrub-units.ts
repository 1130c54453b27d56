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

/** What one EXTENDED COPY may ask for; published by RECEIVE COPY RESULTS and the third-party copy page. */
export const COPY_LIMIT = {
  TARGETS: 4,
  SEGMENTS: 16,
  /** Target and segment descriptors together: all that are allowed of both. */
  LIST_BYTES: 4 * 32 + 16 * 28,
  /** The 16 bits of a segment's length, in bytes. */
  SEGMENT_BYTES: 0xffff * 512,
  /** Copies at a time, over all initiators. */
  CONCURRENT: 4,
  /** Whole blocks are copied. */
  GRANULARITY_EXPONENT: 9,
  /** Block to block, and targets named by their designator. */
  DESCRIPTORS: [0x02, 0xe4],
} as const

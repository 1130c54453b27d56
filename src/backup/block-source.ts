/** A part of a volume, in bytes. */
export interface Range {
  readonly offset: number
  readonly length: number
}

/** The snapshot that an earlier backup was made of. */
export interface BaseSnapshot {
  readonly name: string
  /** When that backup was asked for (RFC 3339): a snapshot of that name that is younger is another one. */
  readonly backedUpAt: string
}

/** A volume as it was at one moment, to be backed up. It does not change while it is being read. */
export interface BlockSource {
  readonly sizeBytes: number
  /** Reads `length` bytes at `offset` to the beginning of `target`. Any number of reads may run at once. */
  read(target: Buffer, length: number, offset: number): Promise<void>
  /** Where something was ever written, in order. */
  allocated(): Iterable<Range>
  /** Where something was written since a snapshot, in order. Undefined when that snapshot is not below this one, or not the same any more. */
  changedSince(base: BaseSnapshot): Iterable<Range> | undefined
}

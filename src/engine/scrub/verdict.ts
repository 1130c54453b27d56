/** One replica's copy of a block. */
export interface BlockCopy {
  /** Index of the replica. */
  readonly replica: number
  /** SHA-256 in hexadecimal; undefined when it cannot be read. */
  readonly digest: string | undefined
  /** The layer itself holds the block, and not one below it. */
  readonly held: boolean
  /** Somebody can read it through the layer. */
  readonly visible: boolean
}

export type Verdict =
  | {readonly kind: 'same'}
  /** `good` has what is right, which is what `digest` says; `bad` have not. */
  | {readonly kind: 'wrong'; readonly good: number; readonly digest: string; readonly bad: readonly BlockCopy[]}
  /** They differ, and there is no telling which is right, for all that checksums were not asked yet or do not help. */
  | {readonly kind: 'unknown'; readonly copies: readonly BlockCopy[]}

/**
 * Who is right about a block. A copy that only some replicas can see is no copy: a purge has been there. Readable beats unreadable; then
 * a majority of the readable copies; then those in a layer file whose recorded checksum still holds (`proven`), if they agree.
 */
export function judge(copies: readonly BlockCopy[], proven: ReadonlySet<number> = new Set()): Verdict {
  if (copies.some(({visible}) => !visible)) return {kind: 'same'}
  const readable = copies.filter(({digest}) => digest !== undefined)
  const groups = new Map<string, BlockCopy[]>()
  for (const copy of readable) groups.set(copy.digest!, [...(groups.get(copy.digest!) ?? []), copy])
  if (groups.size === 0) return {kind: 'unknown', copies}
  if (groups.size === 1 && readable.length === copies.length) return {kind: 'same'}
  const [largest] = [...groups.values()].sort((a, b) => b.length - a.length) as [BlockCopy[]]
  if (groups.size === 1 || largest.length * 2 > readable.length) return wrong(copies, largest[0]!)
  const proofs = readable.filter(({replica, held}) => held && proven.has(replica))
  if (new Set(proofs.map(({digest}) => digest)).size === 1) return wrong(copies, proofs[0]!)
  return {kind: 'unknown', copies}
}

/** The copy that is right can be read. */
function wrong(copies: readonly BlockCopy[], {digest, replica}: BlockCopy): Verdict {
  return {kind: 'wrong', good: replica, digest: digest!, bad: copies.filter(copy => copy.digest !== digest)}
}

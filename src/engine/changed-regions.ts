/** What has changed is remembered in regions of this size, which is that of a rebuild's. Bytes. */
export const REGION_BYTES = 1024 * 1024

/** A set of regions of a volume: cheap to add to, and to empty when little is in it. */
export class RegionSet {
  #present: Uint8Array
  #members: number[] = []

  constructor(sizeBytes: number) {
    this.#present = new Uint8Array(Math.ceil(sizeBytes / REGION_BYTES))
  }

  /** Adds the regions of a range; what lies past the end is left out. Bytes. */
  add(offset: number, length: number): void {
    const last = Math.min(this.#present.length - 1, Math.floor((offset + length - 1) / REGION_BYTES))
    for (let region = Math.floor(offset / REGION_BYTES); region <= last; region++) {
      if (this.#present[region] === 1) continue
      this.#present[region] = 1
      this.#members.push(region)
    }
  }

  addAll(other: RegionSet): void {
    for (const region of other.#members) this.add(region * REGION_BYTES, 1)
  }

  clear(): void {
    for (const region of this.#members) this.#present[region] = 0
    this.#members = []
  }

  grow(sizeBytes: number): void {
    const larger = new Uint8Array(Math.ceil(sizeBytes / REGION_BYTES))
    larger.set(this.#present.subarray(0, larger.length))
    this.#present = larger
  }

  /** How many regions are in it. */
  get size(): number {
    return this.#members.length
  }

  /** Adds the regions of toBits(). */
  addBits(bits: Buffer): void {
    for (let region = 0; region < this.#present.length; region++) {
      if (((bits[region >> 3] ?? 0) & (1 << (region & 7))) !== 0) this.add(region * REGION_BYTES, 1)
    }
  }

  /** A bit for each region, from the lowest bit of the first byte. */
  toBits(): Buffer {
    const bits = Buffer.alloc(Math.ceil(this.#present.length / 8))
    for (const region of this.#members) bits[region >> 3]! |= 1 << (region & 7)
    return bits
  }
}

/** What is known of changes, for an engine that goes on in place of this one; plain JSON. Bits in base64. */
export interface ChangedState {
  readonly recent: string
  readonly missed: readonly (readonly [address: string, bits: string])[]
}

/**
 * Where replicas may differ from one that was dropped: what was written since it was, what was in flight at that moment, and what was
 * not flushed then, as it may have lost that. As long as this engine lives, or one that it has handed over to.
 */
export class ChangedRegions {
  #sizeBytes: number
  /** Since the last flush began, and before that as long as it has not ended: not known to be on any disk. */
  #recent: RegionSet
  #flushing: RegionSet
  #flushRuns = false
  readonly #missed = new Map<string, RegionSet>()

  constructor(sizeBytes: number) {
    this.#sizeBytes = sizeBytes
    this.#recent = new RegionSet(sizeBytes)
    this.#flushing = new RegionSet(sizeBytes)
  }

  /** While no flush runs. */
  get state(): ChangedState {
    const text = (set: RegionSet): string => set.toBits().toString('base64')
    return {recent: text(this.#recent), missed: [...this.#missed].map(([address, set]) => [address, text(set)] as const)}
  }

  /** Goes on with what another engine knew. */
  goOn({recent, missed}: ChangedState): void {
    this.#recent.addBits(Buffer.from(recent, 'base64'))
    for (const [address, bits] of missed) {
      const set = new RegionSet(this.#sizeBytes)
      set.addBits(Buffer.from(bits, 'base64'))
      this.#missed.set(address, set)
    }
  }

  /** A change of a range begins or ends. Called for every one of them. */
  changed(offset: number, length: number): void {
    this.#recent.add(offset, length)
    if (this.#missed.size > 0) for (const missed of this.#missed.values()) missed.add(offset, length)
  }

  /** A flush of all replicas begins; true when flushEnded() is to be called for it. */
  flushBegins(): boolean {
    if (this.#flushRuns) return false
    this.#flushRuns = true
    const {empty, full} = {empty: this.#flushing, full: this.#recent}
    this.#recent = empty
    this.#flushing = full
    return true
  }

  /** It has ended; `complete`: on all replicas that are in use now. */
  flushEnded(complete: boolean): void {
    this.#flushRuns = false
    if (!complete) this.#recent.addAll(this.#flushing)
    this.#flushing.clear()
  }

  /** A replica, by its name, is dropped: that is the same when it comes back at another address. */
  dropped(name: string): void {
    const missed = new RegionSet(this.#sizeBytes)
    missed.addAll(this.#recent)
    missed.addAll(this.#flushing)
    this.#missed.set(name, missed)
  }

  /** Nothing is known any more of what those that were dropped have missed. */
  forgetMissed(): void {
    this.#missed.clear()
  }

  /** What a replica that was dropped has missed up to now; undefined when that is not known. It is not kept any longer. */
  take(name: string): RegionSet | undefined {
    const missed = this.#missed.get(name)
    this.#missed.delete(name)
    return missed
  }

  grow(sizeBytes: number): void {
    this.#sizeBytes = sizeBytes
    for (const set of [this.#recent, this.#flushing, ...this.#missed.values()]) set.grow(sizeBytes)
  }
}

// Mode pages (SPC-4, 7.5; SBC-3, 6.5): 0 page code  1 length of the rest  2 …

/** PAGE CONTROL of MODE SENSE. */
export const PAGE_CONTROL = {CURRENT: 0, CHANGEABLE: 1, DEFAULT: 2, SAVED: 3} as const

interface Page {
  readonly defaults: Buffer
  /** A 1 for each bit that MODE SELECT may change. */
  readonly changeable: Buffer
}

const CONTROL = 0x0a
/** Offsets and bits in the control page. */
const D_SENSE = {byte: 2, bit: 0x04} as const
const SWP = {byte: 4, bit: 0x08} as const

/** All pages, by code: ascending, as MODE SENSE returns them. */
const PAGES: ReadonlyMap<number, Page> = new Map([
  // Read-write error recovery: nothing is recovered behind the initiator's back that it could turn off.
  [0x01, page('01 0a 00 00 00 00 00 00 00 00 00 00')],
  // Caching: WCE, because what was written is not on a disk before a flush; and RCD is 0.
  [0x08, page('08 12 04 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00')],
  // Control: TST 0, one task set; QUEUE ALGORITHM MODIFIER 1, in any order; QERR 0; TAS 1, commands that somebody else
  // aborts end with TASK ABORTED. GLTSD 1.
  [CONTROL, page('0a 0a 02 10 00 40 00 00 00 00 00 00', '00 00 04 00 08 00 00 00 00 00 00 00')],
  // Informational exceptions: DEXCPT, there are none.
  [0x1c, page('1c 0a 08 00 00 00 00 00 00 00 00 00')],
])

/** The mode parameters of the disk: one set for all initiators, as page 87h says. Not saved; a reset brings back the defaults. */
export class ModePages {
  readonly #current = new Map<number, Buffer>()

  constructor() {
    this.reset()
  }

  reset(): void {
    for (const [code, {defaults}] of PAGES) this.#current.set(code, Buffer.from(defaults))
  }

  get codes(): IterableIterator<number> {
    return PAGES.keys()
  }

  has(code: number): boolean {
    return PAGES.has(code)
  }

  /** The page as PAGE CONTROL asks for it. */
  read(code: number, control: number): Buffer {
    const {defaults, changeable} = PAGES.get(code)!
    if (control === PAGE_CONTROL.CHANGEABLE) return Buffer.concat([defaults.subarray(0, 2), changeable.subarray(2)])
    return control === PAGE_CONTROL.DEFAULT ? defaults : this.#current.get(code)!
  }

  /**
   * Where a wanted page differs from the current one in what cannot be changed: the byte and its highest bad bit; undefined
   * when it may be written. The page has the right length and code.
   */
  problem(code: number, wanted: Buffer): {readonly byte: number; readonly bit: number} | undefined {
    const current = this.#current.get(code)!
    const {changeable} = PAGES.get(code)!
    for (let byte = 2; byte < current.length; byte++) {
      const bad = (current[byte]! ^ wanted[byte]!) & ~changeable[byte]!
      if (bad !== 0) return {byte, bit: 31 - Math.clz32(bad)}
    }
    return undefined
  }

  /** Takes over a page that has no problem. True when it changes anything. */
  write(code: number, wanted: Buffer): boolean {
    const current = this.#current.get(code)!
    if (current.subarray(2).equals(wanted.subarray(2, current.length))) return false
    wanted.copy(current, 2, 2)
    return true
  }

  get descriptorSense(): boolean {
    return this.#isSet(D_SENSE)
  }

  get writeProtected(): boolean {
    return this.#isSet(SWP)
  }

  #isSet({byte, bit}: {readonly byte: number; readonly bit: number}): boolean {
    return (this.#current.get(CONTROL)![byte]! & bit) !== 0
  }
}

function page(defaults: string, changeable = ''): Page {
  const bytes = Buffer.from(defaults.replaceAll(' ', ''), 'hex')
  const mask = Buffer.alloc(bytes.length)
  mask.write(changeable.replaceAll(' ', ''), 'hex')
  return {defaults: bytes, changeable: mask}
}

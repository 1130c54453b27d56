const UNITS: Readonly<Record<string, number>> = {'': 1, Ki: 1024, Mi: 1024 ** 2, Gi: 1024 ** 3, k: 1e3, M: 1e6, G: 1e9}

/** Reads a whole quantity as Kubernetes writes it, `2097152` or `2Mi`, where upstream records a size in bytes. Undefined for anything else. */
export function parseQuantity(text: string): number | undefined {
  const [, digits = '', unit = ''] = /^(\d{1,15})(Ki|Mi|Gi|k|M|G)?$/.exec(text.trim()) ?? []
  const bytes = digits === '' ? NaN : Number(digits) * UNITS[unit]!
  return Number.isSafeInteger(bytes) ? bytes : undefined
}

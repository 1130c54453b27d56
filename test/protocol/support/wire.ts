// An encoder of protobuf that shares nothing with the generated one: it knows only what the tables of a test say.

export interface Field {
  readonly number: number
  readonly type: string
  /** As the generated code names it. */
  readonly name: string
}

/** Reads `1:bool is_upgrade 10:map<string,DiskInfo> disks`. */
export function parseFields(notation: string): Field[] {
  return [...notation.matchAll(/(\d+):((?:repeated )?(?:map<\w+,\w+>|\w+)) (\w+)/g)].map(([, number, type = '', name = '']) => ({
    number: Number(number),
    type,
    name: name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase()),
  }))
}

/** A message as it must look on the wire, and as an object. */
export interface Sample {
  readonly bytes: Buffer
  readonly value: Record<string, unknown>
}

/** A message with something in each of `fields`. */
export function sample(fields: readonly Field[], messages: Readonly<Record<string, readonly Field[]>>): Sample {
  const parts = fields.map(field => [field, sampleField(field, messages)] as const)
  return {
    bytes: Buffer.concat(parts.map(([, {bytes}]) => bytes)),
    value: Object.fromEntries(parts.map(([{name}, {value}]) => [name, value])),
  }
}

function sampleField({number, type}: Field, messages: Readonly<Record<string, readonly Field[]>>): {bytes: Buffer; value: unknown} {
  const map = /^map<(\w+),(\w+)>$/.exec(type)
  if (map) {
    const [, keyType = '', valueType = ''] = map
    const key = sampleField({number: 1, type: keyType, name: ''}, messages)
    const value = sampleField({number: 2, type: valueType, name: ''}, messages)
    return {bytes: delimited(number, Buffer.concat([key.bytes, value.bytes])), value: new Map([[key.value, value.value]])}
  }
  if (type.startsWith('repeated ')) {
    const {bytes, value} = sampleField({number, type: type.slice('repeated '.length), name: ''}, messages)
    return {bytes: Buffer.concat([bytes, bytes]), value: [value, value]}
  }
  switch (type) {
    case 'string':
      return {bytes: delimited(number, Buffer.from(`é${number}`)), value: `é${number}`}
    case 'bytes':
      return {bytes: delimited(number, Buffer.from([0, 255])), value: Buffer.from([0, 255])}
    case 'bool':
      return {bytes: plain(number, 1n), value: true}
    case 'int32':
      return {bytes: plain(number, -3n), value: -3}
    case 'int64':
      return {bytes: plain(number, -(2n ** 62n)), value: -(2n ** 62n)}
    case 'uint64':
      return {bytes: plain(number, 2n ** 64n - 1n), value: 2n ** 64n - 1n}
    case 'enum':
      return {bytes: plain(number, 2n), value: 2}
    default: {
      const {bytes, value} = sample(messages[type] ?? [], messages)
      return {bytes: delimited(number, bytes), value}
    }
  }
}

function plain(number: number, value: bigint): Buffer {
  return Buffer.concat([varint(BigInt(number) << 3n), varint(value)])
}

function delimited(number: number, content: Buffer): Buffer {
  return Buffer.concat([varint((BigInt(number) << 3n) | 2n), varint(BigInt(content.length)), content])
}

export function varint(value: bigint): Buffer {
  const bytes: number[] = []
  let rest = BigInt.asUintN(64, value)
  do {
    bytes.push(Number(rest & 0x7fn) | (rest > 0x7fn ? 0x80 : 0))
    rest >>= 7n
  } while (rest > 0n)
  return Buffer.from(bytes)
}

// What is done to a volume, once through qemu-io and once to a plain buffer.
import {tool} from './tool.js'

export interface Change {
  readonly kind: 'write' | 'durable' | 'zero' | 'hole' | 'discard'
  readonly offset: number
  readonly length: number
  /** For `write` and `durable`: the byte that is written. */
  readonly fill?: number
}

/** Commands of qemu-io: `durable` is a write with FUA, `zero` and `hole` are WRITE_ZEROES without and with permission to free space. */
const COMMANDS: Record<Change['kind'], string> = {write: 'write', durable: 'write -f', zero: 'write -z', hole: 'write -z -u', discard: 'discard'}

export function commandOf({kind, offset, length, fill}: Change): string {
  return `${COMMANDS[kind]} ${fill === undefined ? '' : `-P ${fill} `}${offset} ${length}`
}

/** The same to the model. A discard is not: what it leaves depends on what older layers hold. */
export function applyToModel(model: Buffer, {kind, offset, length, fill = 0}: Change): void {
  if (kind !== 'discard') model.fill(fill, offset, offset + length)
}

/** Runs qemu-io with one command after the other, past its caches; throws when a request or a comparison failed. */
export async function qemuIo(target: string, ...commands: readonly string[]): Promise<string> {
  const cache = target.includes('://') ? 'none' : 'writeback'
  const output = await tool(['qemu-io', '-f', 'raw', '-t', cache, '-d', 'unmap', ...commands.flatMap(command => ['-c', command]), target])
  if (/failed|error/i.test(output)) throw new Error(`qemu-io on ${target}: ${output}`)
  return output
}

// Records of backups with many blocks, in parts: as a whole, one with a million blocks kept the event loop, and so a replica's I/O, for more than a second.
import {randomBytes} from 'node:crypto'
import {setImmediate as otherWork} from 'node:timers/promises'
import {blockBytesOf, formatBackupRecord, parseBackupRecord, recordWith, type BackupRecord} from './backup-record.js'
import {BlockList} from './block-list.js'
import {JsonFields} from './json-fields.js'

/** What is parsed at once: a few milliseconds. */
const SLICE_BYTES = 256 * 1024
/** Blocks that are written at once, the same. */
const SLICE_BLOCKS = 4096
const CHAR = {BRACE: 0x7d, COMMA: 0x2c, END: 0x5d} as const

/** As parseBackupRecord(), with other work in between. The latter for what is short, or is not laid out as we and upstream do. */
export async function readBackupRecord(content: Buffer, key: string): Promise<BackupRecord> {
  const frame = content.length <= SLICE_BYTES ? undefined : findList(content, key)
  if (frame === undefined) return parseBackupRecord(content.toString('utf8'), key)
  const {fields, start, end} = frame
  const list = new BlockList(fields, blockBytesOf({parameters: fields.texts('Parameters')}, key))
  for (let at = start; at < end; ) {
    const stop = at + SLICE_BYTES >= end ? end : content.lastIndexOf(CHAR.BRACE, at + SLICE_BYTES) + 1
    const entries = stop <= at ? undefined : parsed(`[${content.toString('utf8', at, stop)}]`)
    // What parses with the list's end behind it is whole entries: nothing that follows can change that. Anything else is left to the one who knows all of JSON.
    const next = skipBlanks(content, stop)
    if (entries === undefined || (next !== end && content[next] !== CHAR.COMMA)) return parseBackupRecord(content.toString('utf8'), key)
    list.add(entries)
    at = next === end ? end : next + 1
    // A comma that nothing follows.
    if (at === end && next !== end) return parseBackupRecord(content.toString('utf8'), key)
    await otherWork()
  }
  return recordWith(fields, list.end())
}

/** As formatBackupRecord(), with other work in between, as bytes. */
export async function writeBackupRecord(record: BackupRecord): Promise<Buffer> {
  if (record.blocks.length <= SLICE_BLOCKS) return Buffer.from(formatBackupRecord(record))
  // With one block in its place, which is always written the same way.
  const [first] = record.blocks
  const frame = formatBackupRecord({...record, blocks: [first!]})
  const one = `[${entryOf(first!)}]`
  const at = frame.lastIndexOf(one)
  const parts = [Buffer.from(frame.slice(0, at + 1))]
  for (let done = 0; done < record.blocks.length; done += SLICE_BLOCKS) {
    const text = record.blocks.slice(done, done + SLICE_BLOCKS).map(entryOf).join(',')
    parts.push(Buffer.from(done === 0 ? text : `,${text}`))
    await otherWork()
  }
  parts.push(Buffer.from(frame.slice(at + one.length - 1)))
  return Buffer.concat(parts)
}

function entryOf({offset, sum}: BackupRecord['blocks'][number]): string {
  return JSON.stringify({Offset: offset, BlockChecksum: sum})
}

/** Everything but the list, and where that is. Undefined where that is not certain. */
function findList(content: Buffer, key: string): {fields: JsonFields; start: number; end: number} | undefined {
  const name = '"Blocks":['
  const found = content.indexOf(name)
  const start = found + name.length
  const end = content.indexOf(CHAR.END, start)
  if (found === -1 || end === -1 || content.length - (end - start) > SLICE_BYTES) return undefined
  // In place of the list something that is nowhere else: so it is told whether this is the record's own.
  const mark = randomBytes(16).toString('hex')
  const rest = `${content.toString('utf8', 0, start)}"${mark}"${content.toString('utf8', end)}`
  if (parsed(rest) === undefined) return undefined
  const fields = new JsonFields(rest, key)
  const value = fields.value('Blocks')
  return Array.isArray(value) && value.length === 1 && value[0] === mark ? {fields, start, end} : undefined
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown
  } catch {
    // The whole of it is parsed then, and what is wrong is told.
    return undefined
  }
}

function skipBlanks(content: Buffer, from: number): number {
  let at = from
  while (at < content.length && [0x20, 0x09, 0x0a, 0x0d].includes(content[at]!)) at++
  return at
}

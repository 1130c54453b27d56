import {createCipheriv} from 'node:crypto'
import {open} from 'node:fs/promises'

const MIB = 1024 ** 2
const KEY = Buffer.alloc(16, 'longhorn')
const WORDS = 'volume replica snapshot engine controller request answer offset length sector layer backup restore error timeout address frontend session'.split(' ')

/** Bytes that no compressor shortens, the same for the same `seed`. */
export function randomLike(bytes: number, seed: number): Buffer {
  const iv = Buffer.alloc(16)
  iv.writeUInt32BE(seed)
  return createCipheriv('aes-128-ctr', KEY, iv).update(Buffer.alloc(bytes))
}

/** Lines as of a log: words, numbers and times, which lz4 shortens to about a third. */
function logLike(bytes: number, seed: number): Buffer {
  const choices = randomLike(bytes, seed)
  const lines: string[] = []
  for (let length = 0, at = 0; length < bytes; at += 8) {
    const word = (index: number): string => WORDS[choices[at + index]! % WORDS.length]!
    const line = `2026-03-01T${String(10 + (at % 14))}:${String(choices[at]! % 60).padStart(2, '0')} ${word(1)} ${word(2)} ${word(3)} ${choices.readUInt32BE(at + 4)} ${word(4)}\n`
    lines.push(line)
    length += line.length
  }
  return Buffer.from(lines.join('')).subarray(0, bytes)
}

/**
 * Writes an image as a volume in use looks: in runs of 4 MiB half of it is incompressible, three tenths compress well, two tenths are zeros that were
 * never written.
 */
export async function writeImage(path: string, sizeBytes: number): Promise<void> {
  await using file = await open(path, 'w')
  await file.truncate(sizeBytes)
  for (let at = 0, run = 0; at < sizeBytes; at += 4 * MIB, run++) {
    const kind = run % 10
    const data = kind < 5 ? randomLike(4 * MIB, run) : kind < 8 ? logLike(4 * MIB, run) : undefined
    if (data !== undefined) await file.write(data.subarray(0, sizeBytes - at), 0, Math.min(data.length, sizeBytes - at), at)
  }
  await file.sync()
}

/** Changes a hundredth of an image, in one place. */
export async function changeImage(path: string, sizeBytes: number, seed: number): Promise<void> {
  await using file = await open(path, 'r+')
  await file.write(randomLike(Math.floor(sizeBytes / 100 / MIB) * MIB, seed), 0, undefined, 0)
  await file.sync()
}

import {randomBytes} from 'node:crypto'
import {open, rename, rm} from 'node:fs/promises'
import {basename, dirname, join, resolve} from 'node:path'
import {checkTarget} from '../../backup/restore-file.js'
import {isInstalled, runCommand} from '../../drivers/attach/run-command.js'
import {LonghornError} from '../../lib/errors.js'

/** Longer than any image takes. */
const CONVERT_TIMEOUT_MS = 24 * 3600 * 1000

/** Throws UNSUPPORTED where images cannot be converted. */
export async function checkConverter(): Promise<void> {
  if (!(await isInstalled('qemu-img'))) throw new LonghornError('UNSUPPORTED', 'making a qcow2 image needs qemu-img (Debian package qemu-utils); --output-format raw does not')
}

/**
 * Has `make` write a raw image beside `file`, converts it, and gives `file` what came out, in the place of what was there. Nothing else is left when it
 * fails; kill -9 leaves hidden files. USAGE for what is no regular file; throws what `make` throws, IO with what qemu-img said, or the signal's reason.
 */
export async function makeQcow2(file: string, make: (raw: string) => Promise<void>, signal: AbortSignal): Promise<void> {
  const path = resolve(file)
  await checkTarget(path, true)
  const beside = join(dirname(path), `.${basename(path)}.${randomBytes(4).toString('hex')}`)
  const [raw, converted] = [`${beside}.raw`, `${beside}.qcow2`]
  try {
    await make(raw)
    await runCommand('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, converted], {timeoutMs: CONVERT_TIMEOUT_MS, signal})
    await sync(converted)
    await rename(converted, path)
    await sync(dirname(path))
  } finally {
    await Promise.all([raw, converted].map(one => rm(one, {force: true})))
  }
}

async function sync(path: string): Promise<void> {
  await using file = await open(path, 'r')
  await file.sync()
}

import {dirname} from 'node:path'
import {realDisk, type DiskSteps} from './disk-steps.js'

/**
 * Replaces a small file so that after a crash at any moment either the old or the new content is there, whole:
 * write X.tmp, fsync it, rename it over X, fsync the directory. When this resolves the new content survives a power cut.
 * A crash leaves at most X.tmp, which the next open recognises by its name and removes.
 *
 * Throws Node's error when a step fails; the old content is then still there, unless only the last step failed.
 */
export async function replaceFile(path: string, content: string | Uint8Array, mode = 0o644, disk: DiskSteps = realDisk): Promise<void> {
  const temporary = `${path}.tmp`
  try {
    await disk.writeSynced(temporary, content, mode)
    await disk.rename(temporary, path)
  } catch (error) {
    // On a full disk the half-written file would only make things worse. What matters is the first failure.
    await disk.remove(temporary).catch(() => undefined)
    throw error
  }
  // Without this a power cut can bring the old content back, after we have acted on the new one.
  await disk.syncDirectory(dirname(path))
}

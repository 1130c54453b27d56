import {createHash} from 'node:crypto'
import {readdirSync, readFileSync, statSync} from 'node:fs'
import {join} from 'node:path'

/** Every file of a folder with its mode, size and a hash of its content. What has been touched at all differs somewhere. */
export function directoryState(path: string): Record<string, string> {
  const files: Record<string, string> = {}
  for (const name of readdirSync(path).sort()) {
    const file = join(path, name)
    const {size, mode} = statSync(file)
    files[name] = `${(mode & 0o777).toString(8)} ${size} ${createHash('sha256').update(readFileSync(file)).digest('hex')}`
  }
  return files
}

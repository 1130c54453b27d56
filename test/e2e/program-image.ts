// The second disk of the guest: this program as it was compiled, with the Node.js that runs us, and the guest's own scripts.
import {cpSync, mkdirSync, readFileSync, rmSync, existsSync} from 'node:fs'
import {dirname, join} from 'node:path'
import {fileURLToPath} from 'node:url'
import {tool} from '../peers/support/tool.js'

const ROOT = fileURLToPath(new URL('../../../', import.meta.url))
const GUEST_SCRIPTS = fileURLToPath(new URL('guest', import.meta.url))
const BUILD_TIMEOUT_MS = 300_000
const PARTS = ['bin', 'package.json', 'oclif.manifest.json', 'dist/src', 'dist/test']

/** How to call it in the guest. Optimizing what runs once does not pay, least of all where the processor is emulated. */
export const NODE_IN_GUEST = '/opt/e2e/node --no-opt --max-lazy'
export const PROGRAM_IN_GUEST = '/opt/e2e/longhorn'
export const LONGHORN_IN_GUEST = `${NODE_IN_GUEST} ${PROGRAM_IN_GUEST}/bin/longhorn`

/** Makes the image in `folder` and gives its path. `withTests`: tests can run from it. */
export async function buildProgramImage(folder: string, {withTests}: {readonly withTests: boolean}): Promise<string> {
  const tree = join(folder, 'programs')
  const image = join(folder, 'programs.img')
  const program = join(tree, 'longhorn')
  mkdirSync(program, {recursive: true})
  cpSync(GUEST_SCRIPTS, tree, {recursive: true})
  cpSync(process.execPath, join(tree, 'node'))
  for (const part of PARTS) {
    cpSync(join(ROOT, part), join(program, part), {recursive: true, dereference: true})
  }
  for (const path of packages(withTests)) {
    mkdirSync(dirname(join(program, path)), {recursive: true})
    cpSync(join(ROOT, path), join(program, path), {recursive: true, dereference: false})
  }
  rmSync(image, {force: true})
  await tool(['mke2fs', '-q', '-t', 'ext4', '-O', '^has_journal', '-m', '0', '-d', tree, '-E', 'root_owner=0:0', image, '1G'], {timeoutMs: BUILD_TIMEOUT_MS})
  rmSync(tree, {recursive: true})
  return image
}

/** Folders of the installed packages that it runs with, `node_modules/execa`. Nested ones come with those that they are in. */
function packages(withDevelopment: boolean): string[] {
  const lock = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')) as {packages: Record<string, {dev?: boolean}>}
  const wanted = Object.entries(lock.packages).filter(([path, {dev}]) => path !== '' && (withDevelopment || dev !== true))
  return wanted.map(([path]) => path).filter(path => existsSync(join(ROOT, path)))
}

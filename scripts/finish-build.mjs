// What `npm run build` does after tsc: drops output whose source is gone, copies what is not TypeScript, and writes
// two files that keep the command line fast (oclif.manifest.json) and able to say what it was built from (build-info.json).
import {execFileSync} from 'node:child_process'
import {copyFileSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync, writeFileSync} from 'node:fs'
import {dirname, join} from 'node:path'
import {fileURLToPath} from 'node:url'
import {Plugin} from '@oclif/core'

const root = fileURLToPath(new URL('..', import.meta.url))
const BUILD_INFO = 'dist/src/build-info.json'

removeOrphans()
copyAssets()
writeBuildInfo()
await writeManifest()

/** A renamed test would otherwise go on running, and a removed command would still be found. */
function removeOrphans() {
  for (const file of ['src', 'test', 'bench', 'scripts'].flatMap(folder => filesIn(join('dist', folder)))) {
    if (file === BUILD_INFO) continue
    const source = file.slice('dist/'.length)
    const candidates = [source, source.replace(/\.js(\.map)?$/, '.ts')]
    if (!candidates.some(candidate => existsSync(join(root, candidate)))) rmSync(join(root, file))
  }
}

/** Everything beside the sources that is read at run time: .proto and .sql files, pages, recorded fixtures. */
function copyAssets() {
  for (const folder of ['src', 'test']) {
    for (const file of filesIn(folder)) {
      if (/\.ts$/.test(file)) continue
      const from = join(root, file)
      const to = join(root, 'dist', file)
      if (existsSync(to) && statSync(to).mtimeMs >= statSync(from).mtimeMs) continue
      mkdirSync(dirname(to), {recursive: true})
      copyFileSync(from, to)
    }
  }
}

function writeBuildInfo() {
  const [gitCommit = '', buildDate = ''] = gitHead()
  replaceFile(BUILD_INFO, {gitCommit, buildDate})
}

/** Commit and its date; nothing outside a git work tree, and nothing before the first commit. */
function gitHead() {
  try {
    const options = {cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore']}
    return execFileSync('git', ['log', '-1', '--format=%H%n%cI'], options).trim().split('\n')
  } catch {
    return []
  }
}

/** Without a manifest oclif loads every command with all that it imports, at each start, to print a help text. */
async function writeManifest() {
  const plugin = new Plugin({root, type: 'core', ignoreManifest: true, errorOnManifestCreate: true, respectNoCacheDefault: true})
  await plugin.load()
  replaceFile('oclif.manifest.json', plugin.manifest)
}

/** Replaced in one step, as commands may be starting at this moment. */
function replaceFile(file, content) {
  const to = join(root, file)
  const temporary = `${to}.${process.pid}.tmp`
  mkdirSync(dirname(to), {recursive: true})
  writeFileSync(temporary, `${JSON.stringify(content, undefined, 2)}\n`)
  renameSync(temporary, to)
}

/** Paths relative to the project, of all files below `folder`; none when it does not exist. */
function filesIn(folder) {
  if (!existsSync(join(root, folder))) return []
  return readdirSync(join(root, folder), {recursive: true, withFileTypes: true})
    .filter(entry => entry.isFile())
    .map(entry => join(entry.parentPath.slice(root.length), entry.name))
}

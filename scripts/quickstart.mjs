// `npm run quickstart`: installs and compiles what is missing, then shows the product. Only Node's own modules here, as
// this may be the first thing that is run in a fresh clone; what it shows is in quickstart/.
import {spawnSync} from 'node:child_process'
import {existsSync, readdirSync, statSync} from 'node:fs'
import {join} from 'node:path'
import {fileURLToPath} from 'node:url'
import {parseArgs} from 'node:util'

const root = fileURLToPath(new URL('..', import.meta.url))
const MAIN = 'dist/scripts/quickstart/run-quickstart.js'
/** Written at the end of each build. */
const BUILD_INFO = 'dist/src/build-info.json'
/** Installing takes long where the network is slow, and has to end somewhere. */
const SETUP_MINUTES = 20
const BUILD_MINUTES = 5

const HELP = `npm run quickstart -- [OPTION]...

Shows a replicated volume on this machine: three replicas, an engine, files on the volume, a replica that is killed while
they are written, and the proof that nothing was lost. Takes about half a minute, once all is installed. Cleans up at
the end, also after Ctrl-C.

  --keep              leave the volume running at the end, and say how to use it
  --stop              end what --keep has left running
  --frontend NAME     blockdev (a file system on a block device; needs root), nbd or socket; auto: the first that
                      works here (default)
  --seconds N         how long to write, 1 to 600 (default 10)
  --directory DIR     where to put it all (default: a directory of its own below ${process.env.TMPDIR ?? '/tmp'})
  --no-install        install and compile nothing
  --help              show this`

const options = readOptions()
if (!options.noInstall) prepare(options)
const {runQuickstart} = await import(new URL(`../${MAIN}`, import.meta.url).href)
process.exit(await runQuickstart(options))

function readOptions() {
  try {
    const {values} = parseArgs({
      options: {
        keep: {type: 'boolean', default: false},
        stop: {type: 'boolean', default: false},
        frontend: {type: 'string', default: 'auto'},
        seconds: {type: 'string', default: '10'},
        directory: {type: 'string'},
        'no-install': {type: 'boolean', default: false},
        help: {type: 'boolean', short: 'h', default: false},
      },
    })
    if (values.help) {
      console.log(HELP)
      process.exit(0)
    }
    const {keep, stop, frontend, directory} = values
    const seconds = Number(values.seconds)
    if (!(seconds >= 1 && seconds <= 600)) throw new Error(`--seconds ${values.seconds}: expected 1 to 600`)
    if (!['auto', 'blockdev', 'nbd', 'socket'].includes(frontend)) throw new Error(`--frontend ${frontend}: expected auto, blockdev, nbd or socket`)
    if (keep && stop) throw new Error('--keep and --stop: one or the other')
    return {keep, stop, frontend, seconds, directory, noInstall: values['no-install']}
  } catch (error) {
    console.error(`Error: ${error.message}; --help lists the options`)
    process.exit(2)
  }
}

/** `--stop` has been installed by the run that it ends. */
function prepare({stop}) {
  if (!stop || !existsSync(join(root, 'node_modules'))) run(SETUP_MINUTES, process.execPath, 'scripts/setup.mjs')
  if (isBuilt()) return
  console.log('build: compiling')
  run(BUILD_MINUTES, 'npm', 'run', '--silent', 'build')
}

/** True when nothing that is compiled has changed since the last build. */
function isBuilt() {
  if (!['oclif.manifest.json', MAIN, BUILD_INFO].every(file => existsSync(join(root, file)))) return false
  const builtAt = statSync(join(root, BUILD_INFO)).mtimeMs
  const sources = ['src', 'scripts'].flatMap(filesIn)
  return ['package.json', 'package-lock.json', 'tsconfig.json', ...sources].every(file => statSync(join(root, file)).mtimeMs <= builtAt)
}

function filesIn(folder) {
  return readdirSync(join(root, folder), {recursive: true, withFileTypes: true})
    .filter(entry => entry.isFile())
    .map(entry => join(entry.parentPath.slice(root.length), entry.name))
}

function run(minutes, command, ...args) {
  const {status, signal, error} = spawnSync(command, args, {cwd: root, stdio: 'inherit', timeout: minutes * 60_000})
  if (status === 0) return
  console.error(`Error: ${[command, ...args].join(' ')}: ${error?.message ?? signal ?? `exit code ${status}`}`)
  process.exit(status ?? 1)
}

// `npm test`: installs what is missing, compiles, runs the tests. Arguments are handed to run-tests.mjs.
import {spawnSync} from 'node:child_process'
import {fileURLToPath} from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

step('setup', process.execPath, 'scripts/setup.mjs')
console.log('build: compiling')
step('build', 'npm', 'run', '--silent', 'build')
step('tests', process.execPath, 'scripts/run-tests.mjs', ...process.argv.slice(2))

function step(name, command, ...args) {
  const {status, signal, error} = spawnSync(command, args, {cwd: root, stdio: 'inherit'})
  if (status === 0) return
  // The closing line is promised to whoever reads the log, also when the tests could not even start.
  if (name !== 'tests' || status === null) {
    console.log(`\n${name} failed: ${error?.message ?? signal ?? `exit code ${status}`}\n0 passed, 1 failed, 0 skipped`)
  }
  process.exit(status ?? 1)
}

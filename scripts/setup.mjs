// Installs what building and testing need: npm packages, and Debian packages where that is possible.
// Only Node's own modules here, as this is the first thing to run in a fresh clone. Doing nothing is fast.
import {spawnSync} from 'node:child_process'
import {existsSync, readFileSync} from 'node:fs'
import {fileURLToPath} from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const APT_TIMEOUT_MS = 15 * 60_000

installNpmPackages()
installDebianPackages()

/** Exits with 1 when they cannot be installed: nothing works without them. */
function installNpmPackages() {
  if (npmPackagesAreCurrent()) return say('npm packages', 'up to date')
  say('npm packages', 'installing')
  const {status} = spawnSync('npm', ['ci', '--no-audit', '--no-fund'], {cwd: root, stdio: ['ignore', 2, 2]})
  if (status !== 0) {
    say('npm packages', '"npm ci" failed')
    process.exit(1)
  }
}

/** True when node_modules holds exactly what package-lock.json asks for; npm keeps its own list of it there. */
function npmPackagesAreCurrent() {
  const installed = packagesIn('node_modules/.package-lock.json')
  const wanted = packagesIn('package-lock.json')
  if (installed === undefined || wanted === undefined) return false
  for (const [path, {version, optional}] of Object.entries(wanted)) {
    if (path === '') continue
    const have = installed[path]
    // An optional package for another processor or system is rightly absent.
    if (have === undefined ? !optional : have.version !== version) return false
  }
  return Object.keys(installed).every(path => path in wanted)
}

function packagesIn(lockFile) {
  const path = `${root}${lockFile}`
  return existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')).packages : undefined
}

/** A failure is no failure of the tests: those that miss a program are skipped and say so. */
function installDebianPackages() {
  const missing = missingDebianPackages()
  if (missing === undefined) return say('Debian packages', 'not a Debian system, nothing installed')
  if (missing.length === 0) return say('Debian packages', 'up to date')
  if (process.getuid?.() !== 0) return say('Debian packages', `not root, missing: ${missing.join(' ')}`)

  say('Debian packages', `installing ${missing.join(' ')}`)
  apt('update')
  // All at once is fast; one by one still gets the others when one of them cannot be had.
  if (!apt('install', ...missing).ok) for (const name of missing) apt('install', name)
  const still = missingDebianPackages() ?? missing
  if (still.length > 0) say('Debian packages', `could not be installed: ${still.join(' ')}`)
}

/** Undefined where there is no apt-get. */
function missingDebianPackages() {
  const {packages} = JSON.parse(readFileSync(new URL('debian-packages.json', import.meta.url), 'utf8'))
  const names = Object.keys(packages)
  const query = spawnSync('dpkg-query', ['-W', '-f=${Package} ${db:Status-Status}\\n', ...names], {encoding: 'utf8'})
  if (query.error || spawnSync('apt-get', ['--version']).error) return undefined
  const installed = new Set(query.stdout.split('\n').filter(line => line.endsWith(' installed')).map(line => line.split(' ')[0]))
  return names.filter(name => !installed.has(name))
}

function apt(...command) {
  const args = ['-q', '-y', '-o', 'DPkg::Lock::Timeout=120', '-o', 'Acquire::Retries=2', '--no-install-recommends', ...command]
  const {status, stdout, stderr} = spawnSync('apt-get', args, {
    encoding: 'utf8',
    timeout: APT_TIMEOUT_MS,
    // Programs are wanted, not services: nobody who runs tests has asked for an NFS server.
    env: {...process.env, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C', SYSTEMD_OFFLINE: '1'},
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  if (status !== 0) say(`apt-get ${command.join(' ')}`, `${stderr || stdout}`.trim().split('\n').slice(-3).join('\n  '))
  return {ok: status === 0}
}

function say(what, state) {
  console.log(`${what}: ${state}`)
}

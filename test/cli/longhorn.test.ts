import {cpSync, mkdirSync, readdirSync, readFileSync} from 'node:fs'
import {join} from 'node:path'
import {execa} from 'execa'
import t from 'tap'
import {longhorn, projectRoot} from './run-program.js'

interface PackageJson {
  readonly version: string
  readonly oclif: {readonly topics: Record<string, {readonly description: string}>}
}

const packageJson = JSON.parse(readFileSync(join(projectRoot, 'package.json'), 'utf8')) as PackageJson

t.test('--version is one line', async t => {
  const {exitCode, stdout, stderr} = await longhorn(['--version'])
  t.match({exitCode, stderr}, {exitCode: 0, stderr: ''})
  t.match(stdout, new RegExp(`^longhorn/${packageJson.version} linux-\\S+ node-v\\S+$`))
})

t.test('version says what upstream looks for, on the fast path and on the other one', async t => {
  const fast = await longhorn(['version', '--client-only'])
  // Whatever may listen at the default address on this machine is not asked.
  const full = await longhorn(['version', '--client-only', '--debug'])
  const json = await longhorn(['version', '--client-only', '--debug', '--json'])
  for (const {exitCode} of [fast, full, json]) t.equal(exitCode, 0)
  const versions: unknown = JSON.parse(fast.stdout)
  t.match(versions, {
    clientVersion: {
      version: packageJson.version,
      gitCommit: String,
      buildDate: String,
      cliAPIVersion: 12,
      cliAPIMinVersion: 8,
      controllerAPIVersion: 6,
      controllerAPIMinVersion: 4,
      dataFormatVersion: 1,
      dataFormatMinVersion: 1,
    },
    serverVersion: null,
  })
  t.equal(full.stdout, fast.stdout)
  t.same(JSON.parse(json.stdout), versions)
})

t.test('--help, help and no arguments at all list the commands', async t => {
  for (const args of [['--help'], ['-h'], ['help'], []]) {
    const {exitCode, stdout} = await longhorn(args)
    t.equal(exitCode, 0)
    t.match(stdout, /^ {2}version +\S/m)
  }
})

t.test('help of one command', async t => {
  const asFlag = await longhorn(['version', '--help'])
  const asCommand = await longhorn(['help', 'version'])
  t.match(asFlag.stdout, /--client-only/)
  t.equal(asCommand.stdout, asFlag.stdout)
})

t.test('a command that does not exist is a usage error on stderr', async t => {
  const {exitCode, stdout, stderr} = await longhorn(['no', 'such'])
  t.match({exitCode, stdout}, {exitCode: 2, stdout: ''})
  t.equal(stderr, 'Error: there is no command "no such"; longhorn --help lists them')
})

t.test('a flag that does not exist is a usage error in one line', async t => {
  const {exitCode, stdout, stderr} = await longhorn(['version', '--nosuch'])
  t.match({exitCode, stdout}, {exitCode: 2, stdout: ''})
  t.equal(stderr, 'Error: Nonexistent flag: --nosuch')
})

t.test('with JSON output a usage error is an object on stdout', async t => {
  for (const args of [['version', '--nosuch', '--json'], ['nosuch', '-o', 'json']]) {
    const {exitCode, stdout, stderr} = await longhorn(args)
    t.match({exitCode, stderr}, {exitCode: 2, stderr: ''})
    t.match(JSON.parse(stdout), {error: {code: 'LH_USAGE', message: String, details: {}}})
  }
})

t.test('a copy that was not compiled says so, and still knows its version', async t => {
  const copy = t.testdir({})
  mkdirSync(join(copy, 'bin'))
  cpSync(join(projectRoot, 'bin/longhorn'), join(copy, 'bin/longhorn'))
  cpSync(join(projectRoot, 'package.json'), join(copy, 'package.json'))
  const run = (...args: string[]) => execa(join(copy, 'bin/longhorn'), args, {reject: false})
  t.match(await run('version'), {exitCode: 1, stdout: '', stderr: /npm run build/})
  t.match(await run('--version'), {exitCode: 0, stdout: `longhorn/${packageJson.version}`})
})

t.test('every topic has a description, and every description a topic', async t => {
  const commands = join(projectRoot, 'src/commands')
  const topics = readdirSync(commands, {recursive: true, withFileTypes: true})
    .filter(entry => entry.isDirectory())
    .map(entry => join(entry.parentPath, entry.name).slice(commands.length + 1).replaceAll('/', ':'))
  t.same(Object.keys(packageJson.oclif.topics).sort(), topics.sort())
  for (const [name, {description}] of Object.entries(packageJson.oclif.topics)) t.ok(description, name)
})

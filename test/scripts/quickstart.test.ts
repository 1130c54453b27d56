// The quickstart as it is on the plainest machine: no terminal, no root, nothing installed. What a richer one shows (a
// file system, NBD tools) is the same code with other hands; whoever changes that runs `npm run quickstart` and looks.
import {existsSync, mkdtempSync, readFileSync, rmSync, statfsSync, writeFileSync} from 'node:fs'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {setTimeout as sleep} from 'node:timers/promises'
import {execa} from 'execa'
import t, {type Test} from 'tap'
import {findMarked} from '../../scripts/quickstart/marked-processes.js'
import type {RunRecord} from '../../scripts/quickstart/workspace.js'
import {projectRoot} from '../cli/run-program.js'

/** The quickstart itself wants 2 GB. */
const {bavail, bsize} = statfsSync(tmpdir())
const skip = bavail * bsize < 2.2e9 && `less than 2.2 GB are free in ${tmpdir()}`

/** Runs it as `npm run quickstart` does, in a directory of its own, which is not below the project: sockets need short paths. */
function quickstart(directory: string, ...args: string[]) {
  const all = [`${projectRoot}scripts/quickstart.mjs`, '--no-install', '--directory', directory, ...args]
  return execa(process.execPath, all, {reject: false, all: true, cwd: projectRoot, env: {FORCE_COLOR: undefined}})
}

function newDirectory(t: Test): string {
  const parent = mkdtempSync(join(tmpdir(), 'longhorn-test-'))
  t.teardown(async () => {
    // It keeps its processes out of our group: if a test fails half-way, nobody else ends them.
    await quickstart(join(parent, 'q'), '--stop')
    rmSync(parent, {recursive: true})
  })
  return join(parent, 'q')
}

/** Starts one and waits until it writes. */
async function startedWriting(t: Test, directory: string) {
  const running = quickstart(directory, '--frontend', 'socket', '--seconds', '60')
  let output = ''
  running.stdout.setEncoding('utf8').on('data', (text: string) => (output += text))
  while (!output.includes('writing …')) {
    if (running.exitCode !== null) throw new Error((await running).all)
    await sleep(50)
  }
  const record = JSON.parse(readFileSync(join(directory, 'run.json'), 'utf8')) as RunRecord
  t.equal(findMarked(record).length, 4, 'three replicas and an engine are running')
  return {running, record}
}

t.test('it shows what it promises and leaves nothing behind', {skip}, async t => {
  const directory = newDirectory(t)
  const {exitCode, all} = await quickstart(directory, '--frontend', 'socket', '--seconds', '1')
  t.equal(exitCode, 0, all)
  t.equal(all.match(/ERR$/gm)?.length, 1, 'one replica fails, and is seen to')
  t.match(all, /^ok: no write failed$/m)
  t.match(all, /every SHA-256 is what it was/)
  t.match(all, /^ok: replica-2 and replica-3 are identical, byte for byte$/m)
  t.match(all, /replica-1\/volume\.meta:"Dirty":true\n.*replica-2\/volume\.meta:"Dirty":false\n.*replica-3\/volume\.meta:"Dirty":false/)
  t.notMatch(all, /[\u001b\r]/, 'no colour and no cursor movement without a terminal')
  t.notOk(existsSync(directory))
  const pids = [...all.matchAll(/process (\d+)/g)].map(match => match[1]!)
  t.equal(pids.length, 6)
  t.same(pids.filter(isLonghorn), [])
})

t.test('Ctrl-C cleans up', {skip}, async t => {
  const directory = newDirectory(t)
  const started = await startedWriting(t, directory)
  started.running.kill('SIGINT')
  t.match(await started.running, {exitCode: 130, all: /Error: interrupted by SIGINT$/})
  t.same(findMarked(started.record), [])
  t.notOk(existsSync(directory))
})

t.test('a failure is reported with its logs, and cleans up all the rest', {skip}, async t => {
  const directory = newDirectory(t)
  const started = await startedWriting(t, directory)
  process.kill(started.record.daemons.find(({role}) => role === 'engine')!.pid, 'SIGKILL')
  const {exitCode, all} = await started.running
  t.equal(exitCode, 19, all)
  t.match(all, /Error: writing data-\d+\.bin to the volume failed: /)
  t.match(all, `The logs of this run are in ${join(directory, 'logs')}`)
  t.ok(existsSync(join(directory, 'logs', 'engine.log')))
  t.notOk(existsSync(join(directory, 'replica-1')))
  t.same(findMarked(started.record), [])
})

t.test('what a killed run has left is cleaned up by the next, and nobody runs beside a living one', {skip}, async t => {
  const directory = newDirectory(t)
  const started = await startedWriting(t, directory)
  t.match(await quickstart(directory), {exitCode: 17, all: /another quickstart is running/})
  started.running.kill('SIGKILL')
  await started.running
  t.ok(findMarked(started.record).length > 0, 'it has left processes behind')
  t.match(await quickstart(directory, '--stop'), {exitCode: 0, all: /cleaned up/})
  t.same(findMarked(started.record), [])
  t.notOk(existsSync(directory))
})

t.test("it does not touch a directory that is somebody's", async t => {
  const directory = join(newDirectory(t), '..')
  writeFileSync(join(directory, 'mine'), 'precious')
  t.match(await quickstart(directory), {exitCode: 2, all: /holds other files \(mine\)/})
  t.match(await quickstart(directory, '--stop'), {exitCode: 2})
  t.equal(readFileSync(join(directory, 'mine'), 'utf8'), 'precious')
})

t.test('wrong arguments are refused before anything is done', async t => {
  for (const args of [['--nosuch'], ['--frontend', 'floppy'], ['--seconds', '0'], ['--keep', '--stop']]) {
    t.match(await quickstart('/nonexistent', ...args), {exitCode: 2, all: /^Error: .*--help lists the options$/}, args.join(' '))
  }
})

/** Another process may have got the number since. */
function isLonghorn(pid: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('longhorn')
  } catch {
    return false
  }
}

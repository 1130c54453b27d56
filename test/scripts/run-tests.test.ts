// The test runner decides whether everything else is right, so it is tested like everything else: on a small project of its own.
import {cpSync, existsSync, mkdirSync, readFileSync, readlinkSync, symlinkSync, writeFileSync} from 'node:fs'
import {dirname, join} from 'node:path'
import {execa} from 'execa'
import t, {type Test} from 'tap'
import {projectRoot} from '../cli/run-program.js'

interface Run {
  readonly exitCode: number | undefined
  readonly stdout: string
  readonly closing: string
}

interface Options {
  readonly args?: readonly string[]
  readonly timeoutS?: number
  /** Seconds that files are known to take. */
  readonly durations?: Record<string, number>
  readonly env?: Record<string, string>
}

/** Runs the given files, named by their source, with our runner. */
async function runTests(t: Test, files: Record<string, string>, {args = [], timeoutS = 60, durations = {}, env = {}}: Options = {}): Promise<Run> {
  const project = t.testdir({})
  for (const script of ['run-tests.mjs', 'test-file.mjs', 'test-schedule.mjs', 'tap-tree.mjs']) {
    mkdirSync(join(project, 'scripts'), {recursive: true})
    cpSync(join(projectRoot, 'scripts', script), join(project, 'scripts', script))
  }
  symlinkSync(join(projectRoot, 'node_modules'), join(project, 'node_modules'))
  writeFileSync(join(project, 'package.json'), '{"type": "module"}')
  for (const [source, text] of Object.entries(files)) {
    const compiled = join(project, 'dist', source.replace(/\.ts$/, '.js'))
    mkdirSync(dirname(compiled), {recursive: true})
    writeFileSync(compiled, text)
  }
  writeFileSync(join(project, 'scripts/test-durations.json'), JSON.stringify(durations))
  const {exitCode, stdout} = await execa(process.execPath, [join(project, 'scripts/run-tests.mjs'), ...args], {
    reject: false,
    env: {LONGHORN_TEST_TIMEOUT_S: String(timeoutS), LONGHORN_TEST_JOBS: undefined, LONGHORN_TEST_RECORD: undefined, ...env},
  })
  return {exitCode, stdout, closing: stdout.split('\n').at(-1) ?? ''}
}

const PASSING = `
  import t from 'tap'
  t.test('many assertions are one test', async t => { for (let i = 0; i < 100; i += 1) t.equal(i, i) })
  t.test('a group', async t => {
    t.test('one', async t => { t.ok(true) })
    t.test('two', async t => { t.ok(true) })
  })`

t.test('a test is counted once, however many assertions it makes', async t => {
  const {exitCode, closing} = await runTests(t, {'test/a.test.ts': PASSING})
  t.equal(closing, '3 passed, 0 failed, 0 skipped')
  t.equal(exitCode, 0)
})

t.test('a skip is listed with its reason, wherever it is written', async t => {
  const {exitCode, stdout, closing} = await runTests(t, {
    'test/a.test.ts': PASSING,
    'test/peers/b.test.ts': `
      import t from 'tap'
      t.test('needs a module', {skip: 'no kernel module nbd'}, async () => {})
      t.test('finds out late', async t => { t.skip('no loop devices') })`,
    'test/peers/c.test.ts': "import t from 'tap'\nt.plan(0, 'fio is not installed')",
  })
  t.equal(closing, '3 passed, 0 failed, 3 skipped')
  t.equal(exitCode, 0)
  t.match(stdout, 'test/peers/b.test.ts › needs a module: no kernel module nbd')
  t.match(stdout, 'test/peers/b.test.ts › finds out late: no loop devices')
  t.match(stdout, 'test/peers/c.test.ts: fio is not installed')
})

t.test('a failed assertion is shown with its path and its difference', async t => {
  const failing = "import t from 'tap'\nt.test('group', async t => { t.test('sum', async t => { t.ok(true); t.equal(1 + 1, 3, 'adds up') }) })"
  const {exitCode, stdout, closing} = await runTests(t, {'test/a.test.ts': PASSING, 'test/b.test.ts': failing})
  t.equal(closing, '3 passed, 1 failed, 0 skipped')
  t.equal(exitCode, 1)
  t.match(stdout, /test\/b\.test\.ts › group › sum › adds up\n[\s\S]*-3\n\s*\+2/)
})

t.test('a file that crashes, exits badly or reports nothing is a failure', async t => {
  const {exitCode, stdout, closing} = await runTests(t, {
    'test/crash.test.ts': "throw new Error('at load')",
    'test/killed.test.ts': "import t from 'tap'\nt.test('x', async t => { t.ok(true); process.kill(process.pid, 'SIGKILL'); await new Promise(() => {}) })",
    'test/nothing.test.ts': '',
  })
  t.equal(closing, '0 passed, 3 failed, 0 skipped')
  t.equal(exitCode, 1)
  t.match(stdout, 'Error: at load')
  t.match(stdout, 'reported no test at all')
})

t.test('a file that hangs is ended together with what it has started', async t => {
  const hanging = `
    import {spawn} from 'node:child_process'
    import {writeFileSync} from 'node:fs'
    import t from 'tap'
    t.test('hangs', async t => {
      const daemon = spawn('sleep', ['1000'], {stdio: 'inherit'})
      writeFileSync('daemon.pid', String(daemon.pid))
      await new Promise(resolve => setTimeout(resolve, 1e6))
    })`
  const {exitCode, stdout, closing} = await runTests(t, {'test/hang.test.ts': hanging}, {timeoutS: 3})
  t.match(closing, /^0 passed, [12] failed, 0 skipped$/)
  t.equal(exitCode, 1)
  t.match(stdout, 'FAILED  test/hang.test.ts')
  const daemon = readFileSync(join(t.testdirName, 'daemon.pid'), 'utf8')
  t.throws(() => readlinkSync(join('/proc', daemon, 'exe')), 'the daemon is gone')
})

t.test('arguments pick files, and none at all is a failure', async t => {
  const files = {'test/a.test.ts': PASSING, 'test/b.test.ts': 'throw 1'}
  t.match(await runTests(t, files, {args: ['test/a']}), {exitCode: 0, closing: '3 passed, 0 failed, 0 skipped'})
  t.match(await runTests(t, files, {args: ['zzz']}), {exitCode: 1, closing: '0 passed, 0 failed, 0 skipped'})
})

t.test('those that take long come first, and how long they took is written down when that is asked for', async t => {
  const files = Object.fromEntries(['a', 'b', 'c', 'd'].map(name => [`test/${name}.test.ts`, PASSING]))
  files['test/b.test.ts'] = "import t from 'tap'\nt.test('waits', async t => { await new Promise(resolve => setTimeout(resolve, 4000)); t.pass() })"
  const durations = {'test/c.test.ts': 7, 'test/d.test.ts': 30, 'test/gone.test.ts': 5}
  const {exitCode, stdout} = await runTests(t, files, {durations, env: {LONGHORN_TEST_JOBS: '1', LONGHORN_TEST_RECORD: '1'}})
  t.equal(exitCode, 0)
  t.same([...stdout.matchAll(/^ok +test\/(.)/gm)].map(([, name]) => name), ['d', 'c', 'a', 'b'])
  const recorded = JSON.parse(readFileSync(join(t.testdirName, 'scripts/test-durations.json'), 'utf8')) as Record<string, number>
  t.ok(recorded['test/b.test.ts']! >= 4, 'it is known to take long now')
  t.notOk('test/gone.test.ts' in recorded, 'and what is not there is forgotten')
})

t.test('a file that waits does not keep others from being run', async t => {
  // Each waits for the other one, whatever the number of processors and however busy they are.
  const meets = (own: string, other: string): string => `
    import {existsSync, writeFileSync} from 'node:fs'
    import t from 'tap'
    t.test('meets the other one', async t => {
      writeFileSync('${own}', '')
      while (!existsSync('${other}')) await new Promise(resolve => setTimeout(resolve, 20))
      t.pass()
    })`
  const files = {'test/a.test.ts': meets('a', 'b'), 'test/b.test.ts': meets('b', 'a')}
  t.match(await runTests(t, files, {env: {LONGHORN_TEST_JOBS: '2'}}), {exitCode: 0, closing: '2 passed, 0 failed, 0 skipped'})
})

t.test('of those with many processes one runs at a time, beside one of the others', async t => {
  const alone = `
    import {existsSync, rmSync, writeFileSync} from 'node:fs'
    import t from 'tap'
    t.test('is alone', async t => {
      t.notOk(existsSync('heavy'))
      writeFileSync('heavy', '')
      await new Promise(resolve => setTimeout(resolve, 300))
      rmSync('heavy')
    })`
  const files = {'test/peers/a.test.ts': alone, 'test/crash/b.test.ts': alone, 'test/peers/c.test.ts': alone, 'test/d.test.ts': PASSING, 'test/e.test.ts': PASSING}
  for (const jobs of ['1', '2', '3']) {
    t.match(await runTests(t, files, {durations: {'test/crash/b.test.ts': 9}, env: {LONGHORN_TEST_JOBS: jobs}}), {exitCode: 0, closing: '9 passed, 0 failed, 0 skipped'})
  }
})

t.test('every file whose duration is written down exists', async t => {
  const durations = JSON.parse(readFileSync(join(projectRoot, 'scripts/test-durations.json'), 'utf8')) as Record<string, number>
  t.same(Object.keys(durations).filter(file => !existsSync(join(projectRoot, file))), [])
})

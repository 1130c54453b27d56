// Runs the compiled tests and reports. Arguments pick the files whose path contains one of them.
// LONGHORN_TEST_RECORD=1 writes down how long each took, for the order of the next runs.
// The last line on stdout is always `N passed, N failed, N skipped`; the exit code is 0 only if nothing failed and something ran.
import {existsSync, readdirSync} from 'node:fs'
import {join} from 'node:path'
import {fileURLToPath} from 'node:url'
import {killTestFiles, runTestFile} from './test-file.mjs'
import {durationsOf, inOrder, recordDurations, runAll} from './test-schedule.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const DURATIONS = join(root, 'scripts/test-durations.json')

process.on('SIGINT', interrupted)
process.on('SIGTERM', interrupted)

const all = testFiles()
const files = all.filter(matches(process.argv.slice(2)))
if (files.length === 0) console.log('No test file matches.')

const results = []
await runAll(inOrder(files, durationsOf(DURATIONS)), async file => {
  const result = {...(await runTestFile(join('dist', file.replace(/\.ts$/, '.js')), root)), file}
  results.push(result)
  printFile(result)
})
report(results)
if (process.env.LONGHORN_TEST_RECORD === '1') recordDurations(DURATIONS, results, all)

/** Sources that have been compiled, `test/lib/sizes.test.ts`: the name that people know. */
function testFiles() {
  const compiled = join(root, 'dist/test')
  if (!existsSync(compiled)) return []
  return readdirSync(compiled, {recursive: true})
    .filter(path => path.endsWith('.test.js'))
    .map(path => join('test', path).replace(/\.js$/, '.ts'))
    .sort()
}

function matches(patterns) {
  const wanted = patterns.map(pattern => pattern.replace(/^(\.\/)?(dist\/)?/, '').replace(/\.js$/, '.ts'))
  return file => wanted.length === 0 || wanted.some(pattern => file.includes(pattern))
}

function printFile({file, passed, failures, skips, leftovers, elapsedMs, processorMs}) {
  const state = failures.length > 0 ? 'FAILED ' : passed > 0 ? 'ok     ' : 'skipped'
  const parts = [`${passed} passed`]
  if (failures.length > 0) parts.push(`${failures.length} failed`)
  if (skips.length > 0) parts.push(`${skips.length} skipped`)
  if (leftovers) parts.push('left processes behind')
  console.log(`${state} ${file} (${parts.join(', ')}; ${(elapsedMs / 1000).toFixed(1)} s, ${(processorMs / 1000).toFixed(1)} s of processor)`)
  // A log that is cut off still says what failed; the details come at the end.
  for (const {name} of failures) console.log(`        ${name}`)
}

function report(results) {
  const skips = results.flatMap(({file, skips}) => skips.map(skip => ({file, ...skip})))
  if (skips.length > 0) console.log('\nSkipped:')
  for (const {file, name, reason} of skips) console.log(`  ${title(file, name)}: ${reason}`)

  const broken = results.filter(({failures}) => failures.length > 0)
  if (broken.length > 0) console.log('\nFailed:')
  for (const {file, failures, output} of broken) {
    for (const {name, details} of failures) console.log(`\n  ${title(file, name)}\n${indent(details)}`)
    if (output.trim() !== '') console.log(`\n  Other output of ${file}:\n${indent(output.trimEnd())}`)
  }

  const passed = results.reduce((sum, result) => sum + result.passed, 0)
  const failed = results.reduce((sum, {failures}) => sum + failures.length, 0)
  console.log(`\n${passed} passed, ${failed} failed, ${skips.length} skipped`)
  process.exitCode = failed === 0 && passed > 0 ? 0 : 1
}

function title(file, name) {
  return name === '' ? file : `${file} › ${name}`
}

function indent(text) {
  return text.replace(/^/gm, '    ')
}

function interrupted() {
  killTestFiles()
  process.exit(130)
}

// Runs one compiled test file in a process of its own and says how it went.
import {spawn} from 'node:child_process'
import {readdirSync, readFileSync} from 'node:fs'
import {TapTree} from './tap-tree.mjs'

/** Generous: the peer tests move gigabytes on slow machines. */
const FILE_TIMEOUT_S = Number(process.env.LONGHORN_TEST_TIMEOUT_S) || 600
/** tap's own limit comes first, as it can still say which test was running. */
const TAP_TIMEOUT_S = Math.ceil(FILE_TIMEOUT_S * 0.95)
const KEPT_OUTPUT_CHARS = 20_000

/** USER_HZ, in which Linux counts for everybody who asks. */
const TICK_MS = 10

/** Process groups that are running now. */
const running = new Set()
/** What all test files that have ended, with what they have waited for, had of the processors. */
let usedMs = 0

/**
 * The files are run by plain node and not by tap's runner: that one puts four loaders and a child-process hook into every
 * process a test starts, which costs half a second each and makes measured times and memory meaningless.
 * A failure of the process itself (crash, timeout, exit code) is a failed test like any other.
 */
export async function runTestFile(file, root) {
  const started = performance.now()
  const child = spawn(process.execPath, ['--enable-source-maps', file], {
    cwd: root,
    env: {...process.env, TAP_TIMEOUT: String(TAP_TIMEOUT_S), NO_COLOR: '1', FORCE_COLOR: undefined},
    stdio: ['ignore', 'pipe', 'pipe'],
    // A group of its own, so that the daemons it starts can be ended with it.
    detached: true,
  })
  running.add(child.pid)
  const tap = new TapTree()
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', chunk => tap.push(chunk))
  child.stderr.setEncoding('utf8').on('data', chunk => {
    stderr = (stderr + chunk).slice(-KEPT_OUTPUT_CHARS)
  })

  const ended = await processEnd(child)
  const {notTap, ...counts} = await tap.end()
  if (counts.failures.length === 0) {
    const problem = ended.problem ?? (counts.passed + counts.skips.length === 0 ? 'reported no test at all' : undefined)
    if (problem !== undefined) counts.failures.push({name: '(the file)', details: problem})
  } else if (ended.timedOut) {
    counts.failures.push({name: '(the file)', details: ended.problem})
  }
  return {file, ...counts, leftovers: ended.leftovers, output: `${notTap.slice(-KEPT_OUTPUT_CHARS)}${stderr}`, elapsedMs: performance.now() - started, processorMs: ended.processorMs}
}

/** Ends every running test file and what it has started. */
export function killTestFiles() {
  for (const group of running) killGroup(group)
}

/** Resolves when the process has exited and its output is complete. */
async function processEnd(child) {
  let timedOut = false
  const timer = setTimeout(() => {
    timedOut = true
    killGroup(child.pid)
  }, FILE_TIMEOUT_S * 1000)
  const closed = new Promise(resolve => child.on('close', resolve))
  const [code, signal] = await new Promise(resolve => {
    child.on('exit', (code, signal) => resolve([code, signal]))
    child.on('error', error => resolve([error.message, null]))
  })
  clearTimeout(timer)
  // The test files are the only children of this process, and were waited for one after the other.
  const used = usedByChildrenMs()
  const processorMs = used - usedMs
  usedMs = used
  running.delete(child.pid)
  // Daemons that outlive their test would hold its output pipes open, its ports, and the memory of this machine.
  const leftovers = hasLiving(child.pid)
  killGroup(child.pid)
  await closed
  return {timedOut, leftovers, processorMs, problem: problemOf(code, signal, timedOut)}
}

/** Processor time of children that have ended, and of theirs. */
function usedByChildrenMs() {
  // PID (NAME) STATE … as fields 1 to 3, cutime and cstime as 16 and 17.
  const fields = readFileSync('/proc/self/stat', 'utf8').split(') ').at(-1).split(' ')
  return (Number(fields[13]) + Number(fields[14])) * TICK_MS
}

function problemOf(code, signal, timedOut) {
  if (timedOut) return `did not end within ${FILE_TIMEOUT_S} s`
  if (signal !== null) return `was ended by ${signal}`
  return code === 0 ? undefined : `ended with exit code ${code}`
}

function killGroup(group) {
  try {
    process.kill(-group, 'SIGKILL')
  } catch {
    // Nobody is left.
  }
}

/** Whether a process group has members that run. What has ended and was not waited for by its parent is no leftover. */
function hasLiving(group) {
  return readdirSync('/proc').some(pid => {
    if (!/^\d+$/.test(pid)) return false
    try {
      // PID (NAME) STATE PPID PGRP …; a name may contain anything.
      const [state, , pgrp] = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1).split(' ')
      return Number(pgrp) === group && state !== 'Z' && state !== 'X'
    } catch {
      return false
    }
  })
}

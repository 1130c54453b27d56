// Which test file is run when, and how many are at once. Only Node's own modules here.
import {existsSync, readFileSync, writeFileSync} from 'node:fs'
import {availableParallelism, cpus} from 'node:os'

/** Files that take less are not written down: they do not matter for the order. */
const WORTH_RECORDING_S = 3
const LOOK_EVERY_MS = 1000
/** Of all processors since the last look: with more than that idle, another file is started. */
const IDLE_SHARE = 0.25

/**
 * The longest first, so that none of them is left for the end; those of which nothing is known come after, by name.
 * @param {string[]} files
 * @param {Record<string, number>} durations in seconds
 */
export function inOrder(files, durations) {
  return [...files].sort((a, b) => (durations[b] ?? 0) - (durations[a] ?? 0) || (a < b ? -1 : 1))
}

/**
 * Runs all of them, begun in this order. Many files spend most of their time with waiting: there is always one for each of two processors, and
 * up to twice as many as long as the machine, whoever else may use it, has little to do.
 * LONGHORN_TEST_JOBS says how many there are instead.
 * @param {string[]} files
 * @param {(file: string) => Promise<void>} run
 */
export function runAll(files, run) {
  const {least, most} = limits()
  const waiting = [...files]
  const idleShare = idleMeter()
  let running = 0
  return new Promise((resolve, reject) => {
    const begin = () => {
      running += 1
      run(waiting.shift()).then(ended, reject)
    }
    const ended = () => {
      running -= 1
      fill()
    }
    const fill = () => {
      while (running < least && waiting.length > 0) begin()
      if (running > 0) return
      clearInterval(timer)
      resolve()
    }
    const timer = setInterval(() => {
      if (idleShare() > IDLE_SHARE && running < most && waiting.length > 0) begin()
    }, LOOK_EVERY_MS)
    fill()
  })
}

function limits() {
  const asked = Number(process.env.LONGHORN_TEST_JOBS)
  if (asked > 0) return {least: asked, most: asked}
  const least = Math.min(2, availableParallelism())
  return {least, most: 2 * least}
}

/** Gives, each time, how much of all processors has been idle since the last time. Waiting for a disk does not count as idle. */
function idleMeter() {
  let last = {idle: idleMs(), at: performance.now()}
  return () => {
    const now = {idle: idleMs(), at: performance.now()}
    const share = (now.idle - last.idle) / (now.at - last.at) / cpus().length
    last = now
    return share
  }
}

function idleMs() {
  return cpus().reduce((sum, {times}) => sum + times.idle, 0)
}

/** How long files took on some machine, in seconds; nothing where that was never written down. */
export function durationsOf(path) {
  return existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : {}
}

/** Writes down how long these took. What is known of others that there still are stays. */
export function recordDurations(path, results, files) {
  const durations = Object.fromEntries(Object.entries(durationsOf(path)).filter(([file]) => files.includes(file)))
  for (const {file, elapsedMs} of results) {
    const seconds = Math.round(elapsedMs / 1000)
    if (seconds >= WORTH_RECORDING_S) durations[file] = seconds
    else delete durations[file]
  }
  const sorted = Object.fromEntries(Object.entries(durations).sort(([a, left], [b, right]) => right - left || (a < b ? -1 : 1)))
  writeFileSync(path, `${JSON.stringify(sorted, undefined, 2)}\n`)
}

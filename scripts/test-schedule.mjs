// Which test file is run when, and how many are at once. Only Node's own modules here.
import {existsSync, readFileSync, writeFileSync} from 'node:fs'
import {availableParallelism} from 'node:os'

/** Files that take less are not written down: they do not matter for the order. */
const WORTH_RECORDING_S = 3
/** Each of these has many processes, disks and networks of its own: one of them at a time, beside one of the others. */
const HEAVY = /^test\/(peers|crash)\//

/**
 * The longest first, so that none of them is left for the end; those of which nothing is known come after, by name.
 * @param {string[]} files
 * @param {Record<string, number>} durations in seconds
 */
export function inOrder(files, durations) {
  return [...files].sort((a, b) => (durations[b] ?? 0) - (durations[a] ?? 0) || (a < b ? -1 : 1))
}

/**
 * Runs all of them, begun in this order, two at a time where there are two processors. LONGHORN_TEST_JOBS says how many instead.
 * @param {string[]} files
 * @param {(file: string) => Promise<void>} run
 */
export async function runAll(files, run) {
  const jobs = Number(process.env.LONGHORN_TEST_JOBS) || Math.min(2, availableParallelism())
  const waiting = [...files]
  /** The end of the heavy one that runs. */
  let heavy
  const lane = async () => {
    while (waiting.length > 0) {
      const at = heavy === undefined ? 0 : waiting.findIndex(file => !HEAVY.test(file))
      if (at === -1) {
        await heavy
        continue
      }
      const [file] = waiting.splice(at, 1)
      const ended = run(file)
      if (!HEAVY.test(file)) {
        await ended
        continue
      }
      heavy = ended
      await ended
      heavy = undefined
    }
  }
  await Promise.all(Array.from({length: jobs}, lane))
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

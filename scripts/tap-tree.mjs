// Reads the TAP that one test file printed and counts its tests.
import {inspect} from 'node:util'
import {Parser} from 'tap-parser'

/**
 * What one file, or one `t.test()` in it, has reported.
 * @typedef {{results: {result: object, child?: Block}[], notTap: string}} Block
 */

/** Follows a file's output; `push` it as it comes, then `end` gives its counts. */
export class TapTree {
  #parser = new Parser({omitVersion: true})
  #file = watch(this.#parser)
  #ended = new Promise(resolve => this.#parser.on('complete', resolve))

  push(chunk) {
    this.#parser.write(chunk)
  }

  /**
   * A test is a `t.test()`, or a file, that makes assertions of its own: its assertions pass together or the test fails.
   * A thousand assertions in a loop are one test; a test that only groups others is none.
   * @returns {Promise<{passed: number, failures: {name: string, details: string}[], skips: {name: string, reason: string}[], notTap: string}>}
   */
  async end() {
    this.#parser.end()
    const final = await this.#ended
    const totals = {passed: 0, failures: [], skips: [], notTap: this.#file.notTap}
    if (this.#file.results.length > 0) count(this.#file, [], totals)
    // The parser also makes up a plan of nothing for a file that printed no plan; that is no skip.
    else if (final.plan.skipAll && !this.#parser.syntheticPlan) totals.skips.push({name: '', reason: final.plan.skipReason || 'no reason given'})
    return totals
  }
}

/** @returns {Block} */
function watch(parser) {
  const block = {results: [], notTap: ''}
  let child
  parser.on('child', childParser => {
    child = watch(childParser)
  })
  parser.on('assert', result => {
    block.results.push({result, child})
    child = undefined
  })
  parser.on('extra', text => {
    block.notTap += text
  })
  return block
}

function count(block, path, totals) {
  const failed = []
  let own = 0
  for (const {result, child} of block.results) {
    const name = [...path, result.name].filter(Boolean)
    if (result.skip !== false || result.todo !== false) {
      totals.skips.push(skipped(path, result))
    } else if (child !== undefined) {
      const before = totals.failures.length
      count(child, name, totals)
      // Failed as a whole although each of its parts is fine: a wrong plan, a timeout.
      if (!result.ok && totals.failures.length === before) totals.failures.push(failure(name, result))
    } else {
      own += 1
      if (!result.ok) failed.push(failure(name, result))
    }
  }
  totals.failures.push(...failed)
  if (failed.length === 0 && (own > 0 || block.results.length === 0)) totals.passed += 1
}

/** With `t.skip('why')` the only text there is, is the name. */
function skipped(path, {name, skip, todo}) {
  const reason = skip || todo
  if (typeof reason === 'string') return {name: [...path, name].join(' › '), reason}
  return {name: path.join(' › '), reason: todo ? `to do: ${name}` : name}
}

function failure(name, result) {
  return {name: name.join(' › '), details: describe(result.diag ?? {})}
}

/** The diagnostics, without what only repeats the source. */
function describe({at, source: _source, test: _test, tapCaught, ...diag}) {
  const lines = []
  if (at?.fileName) lines.push(`at ${at.fileName}:${at.lineNumber}:${at.columnNumber}`)
  if (tapCaught) lines.push(`caught: ${tapCaught}`)
  for (const [key, value] of Object.entries(diag)) {
    const text = typeof value === 'string' ? value.trimEnd() : inspect(value, {depth: 5, breakLength: 120})
    lines.push(text.includes('\n') ? `${key}:\n  ${text.replaceAll('\n', '\n  ')}` : `${key}: ${text}`)
  }
  return lines.join('\n')
}

import {inspect} from 'node:util'
import chalk from 'chalk'
import {LonghornError, messageOf} from '../lib/errors.js'
import type {OutputFormat} from './output-format.js'

/** What a command that failed tells its caller. docs/cli.md publishes the shape. */
export interface Failure {
  readonly exitCode: number
  /** `LH_…` of LonghornError, or LH_INTERNAL for what nobody foresaw. */
  readonly code: string
  readonly message: string
  readonly details: object
}

/** What is known about anything that was thrown. */
export function describeFailure(error: unknown): Failure {
  if (error instanceof LonghornError) {
    const {exitCode, code, details} = error
    return {exitCode, code, message: oneLine(error.message), details}
  }
  if (isFromOclif(error)) {
    // Arguments that oclif itself refused. Other exit codes of its errors are not used here.
    return {exitCode: error.oclif.exit ?? 2, code: 'LH_USAGE', message: oneLine(error.message), details: {}}
  }
  return {exitCode: 1, code: 'LH_INTERNAL', message: messageOf(error), details: {}}
}

/** Prints `error` once: for people one line on stderr, for programs an object on stdout. Returns the exit code. */
export function printFailure(error: unknown, {format, debug}: {format: OutputFormat; debug: boolean}): number {
  if (isFromOclif(error) && error.code === 'EEXIT') return error.oclif.exit ?? 0
  const {exitCode, ...failure} = describeFailure(error)
  if (format === 'json') {
    process.stdout.write(`${JSON.stringify({error: failure}, undefined, 2)}\n`)
  } else {
    const hint = failure.code === 'LH_INTERNAL' && !debug ? ' (unexpected; --debug shows where)' : ''
    process.stderr.write(`${errorWord()} ${failure.message}${hint}\n`)
  }
  if (debug) process.stderr.write(`${inspect(error)}\n`)
  return exitCode
}

/** An error of oclif's, told by its shape: daemons report failures too, and do without oclif. */
function isFromOclif(error: unknown): error is Error & {oclif: {exit?: number}; code?: string} {
  return error instanceof Error && !(error instanceof LonghornError) && 'oclif' in error && typeof error.oclif === 'object'
}

function errorWord(): string {
  return process.stderr.isTTY && !process.env.NO_COLOR ? chalk.red.bold('Error:') : 'Error:'
}

/** oclif spreads what is wrong with the arguments over several lines; scripts and log files read errors by the line. */
function oneLine(message: string): string {
  return message
    .replace(/^Parsing (--\S+)\s+/, '$1: ')
    .replace(/^The following errors? occurred:\s*/, '')
    .replace(/\s*See more help with --help$/, '')
    .replace(/\s*\n\s*/g, ' ')
}

import {readFileSync} from 'node:fs'
import {errnoOf} from './errors.js'

/**
 * What this program says of itself to other processes of the system, ours or upstream's.
 * The names and the order are those of upstream's `longhorn version`; its manager parses them.
 */
export interface VersionInfo {
  readonly version: string
  /** Empty when the build did not happen in a git work tree. */
  readonly gitCommit: string
  /** Date of that commit, so that the same source always gives the same build; empty like it. */
  readonly buildDate: string
  readonly cliAPIVersion: number
  readonly cliAPIMinVersion: number
  readonly controllerAPIVersion: number
  readonly controllerAPIMinVersion: number
  readonly dataFormatVersion: number
  readonly dataFormatMinVersion: number
}

/**
 * Levels of upstream's interfaces that this program speaks. Upstream's manager refuses an engine whose range
 * does not overlap its own, so a number goes up only together with the behaviour it stands for.
 */
const LEVELS = {
  cliAPIVersion: 12,
  cliAPIMinVersion: 8,
  controllerAPIVersion: 6,
  controllerAPIMinVersion: 4,
  dataFormatVersion: 1,
  dataFormatMinVersion: 1,
} as const

/** The version of the running program. Reads two small files; callers that need it often keep the result. */
export function versionInfo(): VersionInfo {
  const {version} = readJson<{version: string}>('../../../package.json')
  const {gitCommit = '', buildDate = ''} = readBuildInfo()
  return {version, gitCommit, buildDate, ...LEVELS}
}

/** Written by `npm run build`; a tree compiled by tsc alone does not have it. */
function readBuildInfo(): {gitCommit?: string; buildDate?: string} {
  try {
    return readJson('../build-info.json')
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return {}
    throw error
  }
}

/** Paths are relative to this file's place in dist/src/lib. */
function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(new URL(path, import.meta.url), 'utf8')) as T
}

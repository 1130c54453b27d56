import {fileURLToPath} from 'node:url'
import {execa} from 'execa'

/** Where package.json is, seen from dist/test/cli. */
export const projectRoot = fileURLToPath(new URL('../../../', import.meta.url))

/** Nothing of the developer's own settings reaches a test. */
const CLEAN_ENV = {PATH: process.env.PATH ?? '', HOME: '/nonexistent', NO_COLOR: '1'}

const run = execa({reject: false, extendEnv: false, env: CLEAN_ENV})

/** Runs `bin/longhorn` as a user would. */
export function longhorn(args: readonly string[], env: Record<string, string> = {}) {
  return run(`${projectRoot}bin/longhorn`, args, {env})
}

/** Runs the command of sample-program.ts, which does what real commands do and fails as they fail. */
export function sample(args: readonly string[], env: Record<string, string> = {}) {
  const program = fileURLToPath(new URL('sample-program.js', import.meta.url))
  return run(process.execPath, [program, ...args], {env})
}

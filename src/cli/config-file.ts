import {readFile} from 'node:fs/promises'
import {homedir} from 'node:os'
import {join} from 'node:path'
import {LonghornError, errnoOf, messageOf} from '../lib/errors.js'

/** Settings by the long name of the flag they stand for. */
export type Settings = Readonly<Record<string, unknown>>

type Scalar = string | number | boolean

let loaded: Promise<Settings> | undefined

/**
 * Spread into a flag to let an environment variable or the config file set it too, in that order after the flag:
 * `manager: Flags.string({...configured('manager'), description: '…'})`.
 * The name is that of the flag; `token-file` is LONGHORN_TOKEN_FILE in the environment.
 */
export function configured(name: string): ConfiguredFlag<string>
export function configured<T extends Scalar>(name: string, convert: (value: Scalar) => T): ConfiguredFlag<T>
export function configured(name: string, convert: (value: Scalar) => Scalar = String): ConfiguredFlag<Scalar> {
  return {
    env: environmentName(name),
    // Help is computed at build time; without this the builder's own config file would end up in it.
    noCacheDefault: true,
    default: async () => {
      const value = await setting(name)
      return value === undefined ? undefined : convert(value)
    },
  }
}

export type ConfiguredFlag<T> = {
  env: string
  noCacheDefault: true
  default: () => Promise<T | undefined>
}

/** `token-file` → `LONGHORN_TOKEN_FILE`. */
export function environmentName(name: string): string {
  return `LONGHORN_${name.toUpperCase().replaceAll('-', '_')}`
}

/** The value of one setting in the config file, or undefined. Throws USAGE when it is a list or a map. */
async function setting(name: string): Promise<Scalar | undefined> {
  loaded ??= readSettings(process.env)
  const value = (await loaded)[name]
  if (value === undefined || value === null) return undefined
  if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') return value
  throw new LonghornError('USAGE', `config file ${configPath(process.env).path}: "${name}" must be a single value`)
}

/** Reads the config file. A missing one is no settings at all, unless LONGHORN_CONFIG names it. */
export async function readSettings(env: NodeJS.ProcessEnv): Promise<Settings> {
  const {path, required} = configPath(env)
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    if (!required && ['ENOENT', 'ENOTDIR', 'EACCES'].includes(errnoOf(error) ?? '')) return {}
    throw new LonghornError('USAGE', `config file ${path}: ${messageOf(error)}`, {path}, {cause: error})
  }
  return parseSettings(text, path)
}

async function parseSettings(text: string, path: string): Promise<Settings> {
  const {parse} = await import('yaml')
  let settings: unknown
  try {
    settings = parse(text)
  } catch (error) {
    throw new LonghornError('USAGE', `config file ${path}: ${messageOf(error)}`, {path}, {cause: error})
  }
  if (settings === null || settings === undefined) return {}
  if (typeof settings !== 'object' || Array.isArray(settings)) {
    throw new LonghornError('USAGE', `config file ${path}: expected "name: value" lines`, {path})
  }
  return settings as Settings
}

function configPath(env: NodeJS.ProcessEnv): {path: string; required: boolean} {
  if (env.LONGHORN_CONFIG) return {path: env.LONGHORN_CONFIG, required: true}
  const home = env.XDG_CONFIG_HOME || join(env.HOME || homedir(), '.config')
  return {path: join(home, 'longhorn', 'config.yaml'), required: false}
}

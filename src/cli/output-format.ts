import {readSettings} from './config-file.js'

export const OUTPUT_FORMATS = ['text', 'json'] as const
export type OutputFormat = (typeof OUTPUT_FORMATS)[number]

/**
 * How results are to be printed: the flag, then LONGHORN_OUTPUT, then the config file.
 * Read from the raw arguments and not from the parsed ones, because an error in the arguments has to be printed in it, too.
 */
export async function outputFormat(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<OutputFormat> {
  return asFormat(formatFlag(argv)) ?? asFormat(env.LONGHORN_OUTPUT) ?? asFormat((await readSettings(env)).output) ?? 'text'
}

function formatFlag(argv: readonly string[]): string | undefined {
  const end = argv.indexOf('--')
  const flags = end === -1 ? argv : argv.slice(0, end)
  if (flags.includes('--json')) return 'json'
  for (const [at, flag] of flags.entries()) {
    if (flag === '--output' || flag === '-o') return flags[at + 1]
    const inline = /^(?:--output=|-o=?)(.+)$/.exec(flag)
    if (inline) return inline[1]
  }
  return undefined
}

function asFormat(value: unknown): OutputFormat | undefined {
  return OUTPUT_FORMATS.find(format => format === value)
}

// How a command line that was written for upstream's `longhorn` becomes one of ours. Pure: looks at words only.

export interface CommandLine {
  /** For oclif. */
  readonly argv: string[]
  /** It means upstream's command: the output, and the exit codes (1, and 61 without data), are upstream's. */
  readonly upstream: boolean
}

/** Upstream's global flags; they stand before the command there, and may stand behind it here. */
const GLOBAL = /^--?(url|volume-name|engine-instance-name)(=.*)?$/s
const DEBUG = /^--?debug(=.*)?$/
const URL_FLAG = /^--?url(=|$)/

/** Commands that only upstream has, by their names and short names. */
const UPSTREAM_ONLY: Readonly<Record<string, readonly string[]>> = {
  info: ['info'],
  'ls-replica': ['ls-replica'],
  ls: ['ls-replica'],
  'add-replica': ['add-replica'],
  add: ['add-replica'],
  'rm-replica': ['rm-replica'],
  rm: ['rm-replica'],
  'update-replica': ['update-replica'],
  update: ['update-replica'],
  'replica-rebuild-status': ['replica-rebuild-status'],
  'rebuild-status': ['replica-rebuild-status'],
  'verify-rebuild-replica': ['verify-rebuild-replica'],
  'verify-rebuild': ['verify-rebuild-replica'],
  'start-with-replicas': ['start-with-replicas'],
  start: ['start-with-replicas'],
  snapshots: ['snapshots'],
  hash: ['snapshots', 'hash'],
  'hash-cancel': ['snapshots', 'hash-cancel'],
  'hash-status': ['snapshots', 'hash-status'],
  expand: ['expand'],
  'unmap-mark-snap-chain-removed': ['unmap-mark-snap-chain-removed'],
  'unmap-mark-snap': ['unmap-mark-snap-chain-removed'],
  journal: ['journal'],
  profiler: ['profiler'],
  'sync-agent-server-reset': ['sync-agent-server-reset'],
}

/** Names that both have, with other arguments or another output. */
const SHARED: Readonly<Record<string, readonly string[]>> = {snapshot: ['snapshots'], frontend: ['frontend'], backup: ['backup']}

/** Upstream's commands about backups that mostly need no engine and so have no --url: by their names and short names. */
const STORE_COMMANDS: Readonly<Record<string, string>> = {'inspect-volume': 'inspect-volume', head: 'head', inspect: 'inspect', ls: 'ls', list: 'ls', rm: 'rm', remove: 'rm', delete: 'rm', status: 'status', restore: 'restore', 'restore-status': 'restore-status', 'restore-to-file': 'restore-to-file'}
/** Those of which we have our own form, and what tells upstream's from it. */
const STORE_FLAGS: Readonly<Record<string, RegExp>> = {inspect: /^$/, ls: /^--?volume(-only)?(=|$)/, rm: /^--?volume(=|$)/, restore: /^--?(concurrent-limit|need-correct-encrypted-volume-size)(=|$)/, 'restore-status': /^$/}

/** Flags that are written `--flag=true` as well by programs that follow Go's ways. */
const SWITCHES = [
  'client-only',
  'debug',
  'disable',
  'disableRevCounter',
  'enable',
  'encrypted',
  'freeze-fs',
  'need-correct-encrypted-volume-size',
  'rehash',
  'salvageRequested',
  'skip-if-in-progress',
  'sync-agent',
  'unmap-mark-disk-chain-removed',
  'unmap-mark-snap-chain-removed',
  'upgrade',
  'volume-only',
]
const SWITCH = new RegExp(`^--?(${SWITCHES.join('|')})=(.*)$`)
const TRUE = ['1', 't', 'T', 'true', 'TRUE', 'True']
const FALSE = ['0', 'f', 'F', 'false', 'FALSE', 'False']

/**
 * Reads the words after `longhorn`. Upstream's form is meant by a command that only upstream has; for the names that both
 * have (`snapshot`, `frontend`), by --url anywhere, by one of upstream's global flags before the command, or by the word `upstream`.
 */
export function readCommandLine(words: readonly string[]): CommandLine {
  const end = words.indexOf('--')
  const before = end === -1 ? [...words] : words.slice(0, end)
  const behind = end === -1 ? [] : words.slice(end)
  const {globals, rest} = takeGlobals(before)
  const [name = '', ...more] = rest
  const upstreamForm = name === 'upstream' || globals.some(word => GLOBAL.test(word)) || more.some(word => URL_FLAG.test(word))
  const store = storeCommand(name, more, upstreamForm)
  if (store !== undefined) return {argv: ['upstream', 'backup', ...store.map(twoDashes).flatMap(asSwitch), ...globals.map(twoDashes), ...behind], upstream: true}
  const command = own(UPSTREAM_ONLY, name) ?? (upstreamForm ? own(SHARED, name) : undefined)
  const flags = [...globals.map(twoDashes), ...behind]
  if (command === undefined) {
    const shaped = upstreamForm || isServer(name) ? more.flatMap(asSwitch) : more
    return {argv: [...(name === '' ? [] : [name]), ...shaped, ...flags], upstream: upstreamForm && !isServer(name)}
  }
  return {argv: ['upstream', ...withDefault(command, more).map(twoDashes).flatMap(asSwitch), ...flags], upstream: true}
}

/** The words of one of upstream's commands about a store, its name first. */
function storeCommand(name: string, more: readonly string[], upstreamForm: boolean): string[] | undefined {
  if (name !== 'backup' && name !== 'backups') return undefined
  const [word = '', ...rest] = more
  const command = Object.hasOwn(STORE_COMMANDS, word) ? STORE_COMMANDS[word]! : undefined
  if (command === undefined) return undefined
  const told = Object.hasOwn(STORE_FLAGS, command) ? rest.some(flag => STORE_FLAGS[command]!.test(flag)) : true
  return told || upstreamForm || name === 'backups' || word !== command ? [command, ...rest] : undefined
}

/** `snapshots` alone lists them. */
function withDefault(command: readonly string[], more: readonly string[]): string[] {
  const [next = ''] = more
  const lists = command.length === 1 && command[0] === 'snapshots' && (next === '' || (next.startsWith('-') && !['-h', '--help'].includes(next)))
  return [...command, ...(lists ? ['ls'] : []), ...more]
}

function takeGlobals(words: readonly string[]): {globals: string[]; rest: string[]} {
  const globals: string[] = []
  let at = 0
  while (at < words.length) {
    const word = words[at]!
    const match = GLOBAL.exec(word)
    if (match === null && !DEBUG.test(word)) break
    globals.push(...asSwitch(word))
    at++
    // Without its value in the same word it takes the next one.
    if (match !== null && match[2] === undefined && at < words.length) globals.push(words[at++]!)
  }
  return {globals, rest: words.slice(at)}
}

/** The process that serves reads upstream's switches as well. */
function isServer(name: string): boolean {
  return ['controller', 'engine', 'replica'].includes(name)
}

/** `-mode` is `--mode` to Go; here every word of more than one letter after a dash is. */
function twoDashes(word: string): string {
  return /^-[a-z][a-z-]+(=|$)/i.test(word) ? `-${word}` : word
}

/** `--flag=true` is `--flag`, `--flag=false` is nothing: but for the one that is on by default. */
function asSwitch(word: string): string[] {
  const [, name, value = ''] = SWITCH.exec(word) ?? []
  if (name === undefined) return [word]
  if (TRUE.includes(value)) return [`--${name}`]
  if (!FALSE.includes(value)) return [word]
  return name === 'sync-agent' ? ['--no-sync-agent'] : []
}

function own(table: Readonly<Record<string, readonly string[]>>, name: string): readonly string[] | undefined {
  return Object.hasOwn(table, name) ? table[name] : undefined
}

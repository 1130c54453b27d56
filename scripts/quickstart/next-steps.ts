// What there is to do after a quickstart. Each of these is a command that works as it is printed.
import {isInstalled} from '../../src/drivers/attach/run-command.js'
import {longhornCommand, type Daemon} from './daemon.js'
import type {Screen} from './screen.js'
import {shellWords} from './shell-words.js'
import type {Ending} from './story.js'
import type {Workspace} from './workspace.js'

type Hint = readonly [command: string, what: string]

export function showWhatIsNext(screen: Screen): void {
  screen.say('\nTry next:')
  showHints(screen, [
    ['npm run quickstart -- --keep', 'the same, and then the volume stays for you to use'],
    [longhorn('--help'), 'the commands there are'],
    [longhorn('engine', '--help'), 'how to run a volume of your own'],
    ['npm test', 'how it is known to work'],
  ])
}

export async function showWhatIsRunning(screen: Screen, workspace: Workspace, {summary, survivors, frontend}: Ending, engine: Daemon, stop: string): Promise<void> {
  const endpoint = engine.ready.endpoint ?? ''
  const {mountPoint} = workspace
  const quoted = shellWords([mountPoint])[0]!
  screen.say(`\n${summary}\nThe volume is still served, by the two. Try:`)
  showHints(screen, [
    ...(frontend === 'blockdev'
      ? ([
          [`ls -l ${quoted}`, 'the files; write others'],
          [`(cd ${quoted} && sha256sum --check SHA256SUMS)`, 'they are what they were'],
        ] as const)
      : []),
    ...(frontend === 'nbd' ? [await nbdHint(endpoint)] : []),
    [longhorn('volume', 'info', '--engine', engine.control), 'the volume'],
    [longhorn('replica', 'ls', '--engine', engine.control), 'its replicas'],
    [`kill -9 ${survivors[0]!.process.pid}`, `another one dies; all goes on with ${survivors[1]!.name}`],
    [`tail -f ${shellWords([`${workspace.logs}/engine.log`])[0]!}`, 'what the engine says to that'],
    [stop, 'end it all and remove it'],
  ])
}

/** What can show it is what was used before. */
async function nbdHint(endpoint: string): Promise<Hint> {
  const argv = (await isInstalled('nbdinfo')) ? ['nbdinfo', endpoint] : ['qemu-img', 'info', '-f', 'raw', endpoint]
  return [shellWords(argv).join(' '), 'what the volume offers']
}

function longhorn(...args: string[]): string {
  return shellWords(longhornCommand(args)).join(' ')
}

function showHints(screen: Screen, hints: readonly Hint[]): void {
  const width = Math.max(...hints.map(([command]) => command.length))
  screen.output(hints.map(([command, what]) => `${command.padEnd(width)}   ${what}`).join('\n'))
}

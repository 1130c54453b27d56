import {statfsSync} from 'node:fs'
import {tmpdir} from 'node:os'
import {join, resolve} from 'node:path'
import {setTimeout as sleep} from 'node:timers/promises'
import {LonghornError, messageOf} from '../../src/lib/errors.js'
import {frontendChoices, type Frontend} from './frontend-choice.js'
import {Interrupt} from './interrupt.js'
import {showLogs} from './logs.js'
import {markChildren} from './marked-processes.js'
import {showWhatIsNext, showWhatIsRunning} from './next-steps.js'
import {Screen} from './screen.js'
import {shellWords} from './shell-words.js'
import {Story, type Ending} from './story.js'
import {isAlive, tearDown} from './teardown.js'
import {Workspace} from './workspace.js'

export interface QuickstartOptions {
  readonly frontend: Frontend | 'auto'
  /** How long to write. */
  readonly seconds: number
  /** Undefined: one per user, below the system's directory for temporary files. */
  readonly directory: string | undefined
  /** Leave the volume running at the end. */
  readonly keep: boolean
  /** End what --keep has left running, or what a killed run has left behind, and nothing else. */
  readonly stop: boolean
}

/** Three replicas with 400 MB each, a copy of the volume to check it, and something left for others. */
const NEEDED_BYTES = 2_000_000_000
const LET_GO_MS = 3000

/** Returns the exit code. By then everything is cleaned up, unless it is to be kept. */
export async function runQuickstart(options: QuickstartOptions): Promise<number> {
  const screen = new Screen()
  const interrupt = new Interrupt(() => screen.say('Cleaning up, which takes a moment.'))
  try {
    const workspace = Workspace.open(resolve(options.directory ?? defaultDirectory()))
    try {
      await (options.stop ? stop(workspace, screen) : show(workspace, options, screen, interrupt.signal))
    } finally {
      workspace.close()
    }
    return 0
  } catch (error) {
    screen.fail(error instanceof LonghornError ? error.message : ((error as Error).stack ?? messageOf(error)))
    return error instanceof LonghornError ? error.exitCode : 1
  } finally {
    interrupt.close()
  }
}

async function show(workspace: Workspace, options: QuickstartOptions, screen: Screen, signal: AbortSignal): Promise<void> {
  await removeLeftovers(workspace, options, screen)
  checkSpace(workspace.directory)
  const choices = await frontendChoices(options.frontend)
  screen.say(`A replicated volume on this machine, in ${workspace.directory}`)
  markChildren(workspace.begin().id)
  const story = new Story(workspace, screen, {choices, seconds: options.seconds}, signal)
  let ending: Ending
  try {
    ending = await story.run()
    if (options.keep) {
      await keep(workspace, story, ending, options, screen)
      return
    }
  } catch (error) {
    await endAfterFailure(workspace, story, error, screen, signal)
    throw error
  }
  await letGo(story)
  await cleanUp(workspace, screen)
  screen.say(`\n${ending.summary}`)
  showWhatIsNext(screen)
}

async function keep(workspace: Workspace, story: Story, ending: Ending, options: QuickstartOptions, screen: Screen): Promise<void> {
  const engine = await story.serveAgain(ending)
  await story.close()
  workspace.note({kept: true})
  await showWhatIsRunning(screen, workspace, ending, engine, stopCommand(options))
}

async function endAfterFailure(workspace: Workspace, story: Story, error: unknown, screen: Screen, signal: AbortSignal): Promise<void> {
  // What went wrong is said first and once more at the end: the cleaning up may take a while, and may have its own to say.
  screen.say(`\n${messageOf(error)}: cleaning up`)
  await letGo(story)
  const problems = await tearDown(workspace, {keepLogs: !signal.aborted})
  for (const problem of problems) screen.fail(`while cleaning up: ${problem}`)
  if (!signal.aborted) showLogs(screen, workspace.logs)
}

/** A write that hangs in the kernel would hold this up, and ends only when the volume does. */
async function letGo(story: Story): Promise<void> {
  await Promise.race([story.close().catch(() => undefined), sleep(LET_GO_MS)])
}

async function stop(workspace: Workspace, screen: Screen): Promise<void> {
  if (workspace.record === undefined) {
    screen.say(`No quickstart is running in ${workspace.directory}.`)
    return
  }
  await cleanUp(workspace, screen, true)
}

async function cleanUp(workspace: Workspace, screen: Screen, polite = false): Promise<void> {
  using progress = await screen.progress('cleaning up …')
  const problems = await tearDown(workspace, {polite})
  if (problems.length > 0) throw new LonghornError('IO', `not all could be cleaned up: ${problems.join('; ')}`)
  progress.succeed('cleaned up: no process, mount, device or file is left')
}

async function removeLeftovers(workspace: Workspace, options: QuickstartOptions, screen: Screen): Promise<void> {
  const {record} = workspace
  if (record === undefined) return
  if (record.kept && isAlive(record)) {
    throw new LonghornError('BUSY', `the last quickstart is still running in ${workspace.directory}, as --keep said; "${stopCommand(options)}" ends it`)
  }
  screen.say('The last quickstart was killed and has left things behind.')
  await cleanUp(workspace, screen)
}

function stopCommand({directory}: QuickstartOptions): string {
  return ['npm run quickstart -- --stop', ...(directory === undefined ? [] : shellWords(['--directory', resolve(directory)]))].join(' ')
}

function defaultDirectory(): string {
  return join(tmpdir(), `longhorn-quickstart-${process.getuid?.() ?? 0}`)
}

function checkSpace(directory: string): void {
  const {bavail, bsize} = statfsSync(directory)
  const freeBytes = bavail * bsize
  if (freeBytes >= NEEDED_BYTES) return
  throw new LonghornError('NO_SPACE', `${directory} has ${(freeBytes / 1e9).toFixed(1)} GB free and ${NEEDED_BYTES / 1e9} GB are needed: choose another --directory`)
}

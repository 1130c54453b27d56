import {Budget} from '../../budget.js'
import {STATUS, type DeviceServer, type Nexus} from '../scsi-task.js'
import type {CommandWindow} from './command-window.js'
import {LOGIN_STATUS, LoginRefusal, type Login, type LoginRules} from './login.js'
import {Session, type SessionLink, type TaskFilter} from './session.js'

/** A volume has few initiators, each with a few paths. */
const MAX_SESSIONS = 64
const MAX_TSIH = 0xffff
/**
 * What initiators get for commands that another one takes back (TAS is 1; SAM-5, 5.6): they would otherwise wait for them until
 * they time out. Whoever takes back its own commands knows, and gets nothing for them.
 */
const FOR_OTHERS = STATUS.TASK_ABORTED

/** What a login leads to. */
export interface OpenedSession {
  readonly session: Session
  /** The session was there already: its initiator has replaced its connection. */
  readonly reinstated: boolean
}

/** The one target there is: its device server and its sessions. */
export class Target {
  readonly budget = new Budget()
  readonly #sessions = new Map<number, Session>()
  #lastTsih = 0
  #nextNexus = 1

  constructor(
    readonly rules: LoginRules,
    readonly deviceServer: DeviceServer,
  ) {
    deviceServer.abortCommands = (nexus, lun, except) => {
      const session = this.sessions.find(one => one.nexus.id === nexus.id)
      if (session === undefined) return Promise.resolve()
      const isOwn = except.nexus.id === nexus.id
      return new Promise(resolve => session.abort({lun, except}, isOwn ? undefined : FOR_OTHERS, resolve))
    }
  }

  get sessions(): Session[] {
    return [...this.#sessions.values()]
  }

  /**
   * What a login that is otherwise complete leads to: a new session, in place of one of the same initiator port if there is
   * one, or a new connection of a session in place of its present one. Throws LoginRefusal.
   */
  open(login: Login, window: CommandWindow, connection: SessionLink, peer: string): OpenedSession {
    const {initiatorName, isid, tsih} = login
    const same = this.sessions.find(session => session.nexus.initiatorName === initiatorName && session.nexus.isid.equals(isid))
    if (tsih !== 0) return {session: this.#reinstateConnection(login, same, connection), reinstated: true}
    if (same !== undefined) {
      same.link.end('the initiator has started this session anew')
      this.close(same)
    }
    if (this.#sessions.size >= MAX_SESSIONS) throw new LoginRefusal(LOGIN_STATUS.OUT_OF_RESOURCES, `there are ${MAX_SESSIONS} sessions already`)
    const nexus: Nexus = {initiatorName, isid, id: this.#nextNexus++, peer}
    const session = new Session(nexus, this.newTsih(), this.deviceServer, login.parameters, window, this.budget, connection)
    this.#sessions.set(session.tsih, session)
    this.budget.enter()
    this.deviceServer.nexusAdded(nexus)
    return {session, reinstated: false}
  }

  /** Ends a session. Safe twice. */
  close(session: Session): void {
    if (!this.#sessions.delete(session.tsih)) return
    this.budget.leave()
    session.dropCommands()
    this.deviceServer.nexusLost(session.nexus)
  }

  /** Takes back commands of all sessions, for `by`. `done` is called when they are over. */
  abortAll(filter: TaskFilter, by: Session, done: () => void): void {
    const {sessions} = this
    let left = sessions.length
    const oneDone = (): void => {
      if (--left === 0) done()
    }
    for (const session of sessions) session.abort(filter, session === by ? undefined : FOR_OTHERS, oneDone)
  }

  /** Ends all sessions, once what is queued for them has been sent. */
  endSessions(): void {
    for (const session of this.sessions) session.link.endAfterFlush()
  }

  /** A session number that is not in use. */
  newTsih(): number {
    do {
      this.#lastTsih = (this.#lastTsih % MAX_TSIH) + 1
    } while (this.#sessions.has(this.#lastTsih))
    return this.#lastTsih
  }

  #reinstateConnection({tsih, cid, parameters}: Login, session: Session | undefined, connection: SessionLink): Session {
    if (session?.tsih !== tsih) throw new LoginRefusal(LOGIN_STATUS.NO_SUCH_SESSION, `there is no session ${tsih} of this initiator`)
    const previous = session.link
    if (previous.cid !== cid) throw new LoginRefusal(LOGIN_STATUS.TOO_MANY_CONNECTIONS, 'a second connection in one session')
    session.dropCommands()
    session.link = connection
    previous.end('the initiator has replaced this connection')
    Object.assign(session.parameters, parameters)
    return session
  }
}

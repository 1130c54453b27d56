import {mkdir, readFile} from 'node:fs/promises'
import {dirname} from 'node:path'
import {errnoOf, LonghornError, messageOf} from '../../../../../lib/errors.js'
import {replaceFile} from '../../../../../replica/durable-file.js'
import {decodeSavedState, encodeSavedState, type ReservationStore, type SavedState} from './saved-state.js'

/** Keeps the state in a file of JSON, which after a crash is either the old one or the new one. */
export class FileReservationStore implements ReservationStore {
  constructor(readonly path: string) {}

  async load(): Promise<SavedState | undefined> {
    let text
    try {
      text = await readFile(this.path, 'utf8')
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined
      throw new LonghornError('IO', `cannot read the persistent reservations in ${this.path}: ${messageOf(error)}`, {}, {cause: error})
    }
    return decodeSavedState(text, this.path)
  }

  async save(state: SavedState): Promise<void> {
    try {
      await mkdir(dirname(this.path), {recursive: true})
      await replaceFile(this.path, encodeSavedState(state), 0o600)
    } catch (error) {
      throw new LonghornError('IO', `cannot keep the persistent reservations in ${this.path}: ${messageOf(error)}`, {}, {cause: error})
    }
  }
}

import type {BackupStore} from '../../backup/store/backup-store.js'
import type {TargetUrl} from '../../backup/target-url.js'
import {messageOf} from '../../lib/errors.js'
import {withStore, type Selected} from '../backup-target.js'
import {UpstreamCommand} from './upstream-command.js'

/** One of upstream's commands that need no engine, only a store. */
export abstract class StoreCommand extends UpstreamCommand {
  /** As withStore(). Upstream prints the reason of a failure on stdout, too, and programs look for words in it there. */
  protected async store<T>(url: string, needed: Selected, use: (store: BackupStore, url: TargetUrl & {volume: string; backup: string}) => Promise<T>): Promise<T> {
    try {
      return await withStore(url, needed, use)
    } catch (error) {
      this.log(messageOf(error))
      throw error
    }
  }
}

import {Args, Flags} from '@oclif/core'
import {BaseCommand} from '../../cli/base-command.js'
import type {DetachReport} from '../../drivers/attach/attacher.js'

export default class VolumeDetach extends BaseCommand {
  static override summary = "Remove a volume's block device from this host, whatever condition it is in."

  static override description = `Cleans up after an engine that was killed as well: device node, the kernel's connection, iSCSI session, loop device. Nothing to remove is success.
An engine that runs with --frontend blockdev removes its device by itself when it is stopped.`

  static override examples = ['<%= config.bin %> <%= command.id %> vol1', '<%= config.bin %> <%= command.id %> vol1 --force']

  static override args = {
    volume: Args.string({required: true, ignoreStdin: true, description: 'name of the volume'}),
  }

  static override flags = {
    force: Flags.boolean({description: 'take the device away from whoever uses it; what was not written yet is lost'}),
    'only-broken': Flags.boolean({description: 'leave a device alone that works'}),
  }

  async run(): Promise<DetachReport> {
    const {args, flags} = await this.parse(VolumeDetach)
    const {hostAttacher} = await import('../../cli/host-attacher.js')
    const report = await hostAttacher().detach(args.volume, {force: flags.force, onlyBroken: flags['only-broken']}, this.signal)
    for (const warning of report.warnings) this.logToStderr(warning)
    this.log(report.detached ? `${args.volume} is detached` : `${args.volume} was not ${flags['only-broken'] ? 'detached' : 'attached'}`)
    return report
  }
}

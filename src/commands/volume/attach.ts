import {Args, Flags} from '@oclif/core'
import {BaseCommand} from '../../cli/base-command.js'
import type {AttachedDevice} from '../../drivers/attach/attacher.js'

export default class VolumeAttach extends BaseCommand {
  static override summary = 'Make a block device /dev/longhorn/VOLUME on this host of a volume that is served elsewhere.'

  static override description = `The engine serves the volume with --frontend nbd or iscsi, on this host or another one, and says its endpoint when it is ready.
Attaching what is attached already is success, and finds its server again if that was lost. "volume detach" removes the device.

Ways: kernel-nbd (the kernel module nbd), kernel-iscsi (for iscsi endpoints; open-iscsi), fuse (nbdfuse and a loop device).`

  static override examples = [
    '<%= config.bin %> <%= command.id %> vol1 --endpoint nbd://10.0.0.5:10809/vol1',
    '<%= config.bin %> <%= command.id %> vol1 --endpoint iscsi://10.0.0.5:3260/iqn.2019-10.io.longhorn:vol1/1 --chap-file /etc/longhorn/vol1.chap',
  ]

  static override args = {
    volume: Args.string({required: true, description: 'name of the volume'}),
  }

  static override flags = {
    endpoint: Flags.string({required: true, description: 'where it is served: nbd://…, nbd+unix://… or iscsi://…'}),
    attach: Flags.string({default: 'auto', description: 'which way: auto, or one of the ways above'}),
    'chap-file': Flags.string({description: 'for iscsi: a file, or folder, with node.session.auth.username and .password'}),
    'read-only': Flags.boolean({description: 'a device that cannot be written to'}),
  }

  async run(): Promise<AttachedDevice> {
    const {args, flags} = await this.parse(VolumeAttach)
    const [{hostAttacher}, {parseEndpoint, withChapFile}] = await Promise.all([
      import('../../cli/host-attacher.js'),
      import('../../drivers/attach/endpoint-uri.js'),
    ])
    const endpoint = withChapFile(parseEndpoint(flags.endpoint), flags['chap-file'])
    const request = {volume: args.volume, endpoint, readOnly: flags['read-only'], trim: 'may-keep-data' as const}
    const attached = await hostAttacher().attach(request, this.signal, flags.attach)
    this.log(attached.device)
    return attached
  }
}

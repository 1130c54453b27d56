import {Args} from '@oclif/core'
import {BaseCommand} from '../../cli/base-command.js'
import {connectEngine, engineFlags} from '../../cli/engine-connection.js'
import {volumeFlag} from '../../cli/flags.js'
import {formatSize, parseSize} from '../../lib/sizes.js'

export default class VolumeExpand extends BaseCommand {
  static override summary = 'Make a volume larger while it is being used.'

  static override description = `All replicas become larger at the same moment; what is new reads as zeros. iSCSI initiators are told and rescan, NBD clients
see it when they connect again. A device that the engine has made by way of nbdfuse keeps its size until it is made anew: this command says so.
A file system on it then has to be made larger, for example with resize2fs or xfs_growfs.
A volume never becomes smaller.`

  static override examples = ['<%= config.bin %> <%= command.id %> 20g', '<%= config.bin %> <%= command.id %> 20g --engine 10.0.0.5:9501']

  static override args = {size: Args.string({required: true, ignoreStdin: true, description: 'the new size, such as 20g; a multiple of 4096 bytes'})}

  static override flags = {...engineFlags, ...volumeFlag}

  async run(): Promise<{name: string; size: number; deviceNotice: string}> {
    const {args, flags} = await this.parse(VolumeExpand)
    await using engine = connectEngine(flags.engine, flags.volume)
    const {name, size, deviceNotice} = await engine.volumeExpand({size: BigInt(parseSize(args.size))}, {signal: this.signal})
    this.log(`${name} has ${formatSize(size)} (${size} bytes)`)
    if (deviceNotice !== '') {
      this.logToStderr(`${deviceNotice}\nwhile nobody uses it: longhorn frontend shutdown, then longhorn frontend start blockdev`)
    }
    return {name, size: Number(size), deviceNotice}
  }
}

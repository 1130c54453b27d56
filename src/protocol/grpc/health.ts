import {EventEmitter, once} from 'node:events'
import {LonghornError} from '../../lib/errors.js'
import {HealthCheckResponse_ServingStatus as ServingStatus, HealthDefinition} from '../proto/generated/health.js'
import {provide, type Handlers, type Service} from './service.js'

/** The standard health service, as grpc_health_probe and upstream's instance manager ask it. Not serving until it is told to. */
export class Health {
  readonly service: Service
  readonly #status = new Map<string, ServingStatus>([['', ServingStatus.NOT_SERVING]])
  readonly #changes = new EventEmitter().setMaxListeners(0)

  constructor() {
    const handlers: Handlers<typeof HealthDefinition> = {
      check: async ({service}) => {
        const status = this.#status.get(service)
        if (status === undefined) throw new LonghornError('NOT_FOUND', `unknown service ${JSON.stringify(service.slice(0, 256))}`)
        return {status}
      },
      watch: ({service}, {signal}) => this.#watch(service, signal),
    }
    this.service = provide(HealthDefinition, handlers)
  }

  /** For the process as a whole when no service is named. */
  set(status: 'SERVING' | 'NOT_SERVING', service = ''): void {
    this.#status.set(service, ServingStatus[status])
    this.#changes.emit('change')
  }

  async *#watch(service: string, signal: AbortSignal): AsyncGenerator<{status: ServingStatus}> {
    let told: ServingStatus | undefined
    for (;;) {
      const status = this.#status.get(service) ?? ServingStatus.SERVICE_UNKNOWN
      if (status === told) {
        await once(this.#changes, 'change', {signal})
        continue
      }
      yield {status}
      told = status
    }
  }
}

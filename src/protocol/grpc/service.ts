import type {MethodDefinition, RequestOf, ResponseOf, ServiceDefinition, StreamingMethod, UnaryMethod} from './service-definition.js'

/** What a handler knows of the call beside its request. */
export interface CallContext {
  /** `ReplicaGet` */
  readonly method: string
  /** `10.0.0.7:41234`, for the log. */
  readonly peer: string
  /** Aborted when nobody waits for the answer any more: the caller has gone or its deadline has passed, or this server is being destroyed. */
  readonly signal: AbortSignal
}

/**
 * A service as an object with one async function for each method; an instance of a class will do.
 * A method with a stream of responses is an async generator. Methods that are left out answer UNSUPPORTED.
 * What a handler throws goes to the caller by its kind (status.ts). A request is of the right shape; its values are the
 * handler's to check (fields.ts).
 */
export type Handlers<S extends ServiceDefinition> = {
  readonly [M in UnaryMethod<S>]?: (request: RequestOf<S, M>, context: CallContext) => Promise<ResponseOf<S, M>>
} & {
  readonly [M in StreamingMethod<S>]?: (request: RequestOf<S, M>, context: CallContext) => AsyncIterable<ResponseOf<S, M>>
}

/** A service of which the server needs to know no more than how to call it. */
export interface Service {
  readonly definition: ServiceDefinition
  readonly methods: readonly ServedMethod[]
}

export interface ServedMethod {
  readonly definition: MethodDefinition
  /** Undefined when this process does not provide the method. */
  readonly handle: ((request: unknown, context: CallContext) => Promise<unknown> | AsyncIterable<unknown>) | undefined
}

/** Ties handlers to the service that they implement. */
export function provide<S extends ServiceDefinition>(definition: S, handlers: Handlers<S>): Service {
  const byName = handlers as Readonly<Record<string, ServedMethod['handle']>>
  const methods = Object.entries(definition.methods).map(([name, method]): ServedMethod => {
    const handler = byName[name]
    return {definition: method, handle: handler && ((request, context) => handler.call(handlers, request, context))}
  })
  return {definition, methods}
}

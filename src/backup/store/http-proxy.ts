// Through a proxy, as the environment asks for it: HTTP_PROXY, HTTPS_PROXY and NO_PROXY, also in small letters, with the meaning that they have for
// upstream's programs. Requests over http go to the proxy with their whole URL; those over https through a tunnel that it opens (CONNECT).
import {Agent as HttpAgent, request as httpRequest, type AgentOptions, type ClientRequest, type ClientRequestArgs} from 'node:http'
import {Agent as HttpsAgent, request as httpsRequest, type AgentOptions as TlsOptions, type RequestOptions} from 'node:https'
import {BlockList, isIP, type Socket} from 'node:net'
import type {Duplex} from 'node:stream'
import {connect as tlsConnect} from 'node:tls'
import {LonghornError} from '../../lib/errors.js'

type Env = Readonly<Record<string, string | undefined>>

const TUNNEL_TIMEOUT_MS = 10_000

/** The proxy for a host; undefined for none: this machine's own addresses, and what NO_PROXY names. USAGE for a proxy that is no URL. */
export function proxyOf(env: Env, scheme: 'http' | 'https', host: string, port: number): URL | undefined {
  const name = `${scheme}_proxy`
  const text = env[name.toUpperCase()] || env[name]
  if (!text || isLocal(host) || isExcepted(env.NO_PROXY || env.no_proxy || '', host, port)) return undefined
  const whole = /^\w+:\/\//.test(text) ? text : `http://${text}`
  const url = URL.canParse(whole) ? new URL(whole) : undefined
  if (url === undefined) throw new LonghornError('USAGE', `${name.toUpperCase()} is not the URL of a proxy: expected http://host:port`)
  if (url.protocol !== 'http:' && url.protocol !== 'https:') throw new LonghornError('UNSUPPORTED', `${name.toUpperCase()}: proxies of the kind ${url.protocol.slice(0, -1)} are not supported, http and https are`)
  if (scheme === 'http' && url.protocol === 'https:') throw new LonghornError('UNSUPPORTED', 'HTTP_PROXY: a store over http cannot be reached through a proxy over https: use a proxy over http, or the store over https')
  return url
}

/** For requests over http. */
export class ProxyHttpAgent extends HttpAgent {
  constructor(
    readonly env: Env,
    options: AgentOptions,
  ) {
    super(options)
  }

  // Node calls this for every request; its types do not show it.
  addRequest(request: ClientRequest, options: ClientRequestArgs): void {
    const host = String(options.host)
    const proxy = proxyOf(this.env, 'http', host, Number(options.port ?? 80))
    if (proxy !== undefined) {
      request.path = `http://${request.getHeader('host') as string}${request.path}`
      for (const [name, value] of Object.entries(authorization(proxy))) request.setHeader(name, value)
    }
    const to = proxy === undefined ? options : {...options, host: hostOf(proxy), port: Number(proxy.port || 80)}
    ;(HttpAgent.prototype as unknown as {addRequest(request: ClientRequest, options: ClientRequestArgs): void}).addRequest.call(this, request, to)
  }
}

/** For requests over https. */
export class ProxyHttpsAgent extends HttpsAgent {
  constructor(
    readonly env: Env,
    options: TlsOptions,
  ) {
    super(options)
  }

  override createConnection(options: RequestOptions, done?: (error: Error | null, stream: Duplex) => void): Duplex | null | undefined {
    const host = String(options.host)
    const port = Number(options.port ?? 443)
    const proxy = proxyOf(this.env, 'https', host, port)
    if (proxy === undefined || done === undefined) return super.createConnection(options, done)
    openTunnel(proxy, `${host.includes(':') ? `[${host}]` : host}:${port}`).then(
      // `path` would be taken for a unix socket.
      socket => done(null, tlsConnect({...(options as object), path: undefined, socket, ...(isIP(host) === 0 ? {servername: host} : {})})),
      (error: Error) => (done as (error: Error) => void)(error),
    )
    return undefined
  }
}

function openTunnel(proxy: URL, to: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const ask = proxy.protocol === 'https:' ? httpsRequest : httpRequest
    const fail = (why: string, cause?: Error): void => reject(new Error(`the proxy ${proxy.host} ${why}`, {cause}))
    const request = ask({host: hostOf(proxy), port: proxy.port || (proxy.protocol === 'https:' ? 443 : 80), method: 'CONNECT', path: to, headers: {host: to, ...authorization(proxy)}, agent: false, timeout: TUNNEL_TIMEOUT_MS})
    request.once('connect', ({statusCode}, socket) => {
      socket.setTimeout(0)
      if (statusCode === 200) return resolve(socket)
      socket.destroy()
      fail(`does not connect to ${to}: HTTP ${statusCode}`)
    })
    request.once('response', ({statusCode}) => {
      request.destroy()
      fail(`does not connect to ${to}: HTTP ${statusCode}`)
    })
    request.once('timeout', () => request.destroy(new Error(`no answer within ${TUNNEL_TIMEOUT_MS / 1000} s`)))
    request.once('error', error => fail(`cannot be used: ${error.message}`, error))
    request.end()
  })
}

/** IPv6 without the brackets that it has in URLs. */
function hostOf({hostname}: URL): string {
  return hostname.replace(/^\[(.*)\]$/, '$1')
}

function authorization({username, password}: URL): Record<string, string> {
  if (username === '') return {}
  return {'proxy-authorization': `Basic ${Buffer.from(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`).toString('base64')}`}
}

function isLocal(host: string): boolean {
  const plain = host.replace(/^\[|\]$/g, '')
  return plain === 'localhost' || plain === '::1' || (isIP(plain) === 4 && plain.startsWith('127.'))
}

/** `*`, `host`, `.host` (what is below it alone), `10.0.0.0/8`, `10.1.2.3`, each also with a port; a host counts with everything below it. */
function isExcepted(list: string, host: string, port: number): boolean {
  const plain = host.toLowerCase().replace(/^\[|\]$/g, '')
  return list.split(',').some(item => {
    const entry = item.trim().toLowerCase()
    if (entry === '' || entry === '*') return entry === '*'
    const range = /^([\da-f.:]+)\/(\d{1,3})$/.exec(entry)
    if (range !== null) return isInside(plain, range[1]!, Number(range[2]))
    const [, name = entry, only] = /^\[?([^\]]*?)\]?:(\d+)$/.exec(entry.includes('::') && !entry.startsWith('[') ? '' : entry) ?? []
    if (only !== undefined && Number(only) !== port) return false
    if (name.startsWith('.') || name.startsWith('*.')) return plain.endsWith(name.replace(/^\*/, ''))
    return plain === name || plain.endsWith(`.${name}`)
  })
}

function isInside(address: string, network: string, prefix: number): boolean {
  const family = isIP(network)
  if (family === 0 || isIP(address) !== family || prefix > (family === 4 ? 32 : 128)) return false
  const block = new BlockList()
  const type = family === 4 ? 'ipv4' : 'ipv6'
  block.addSubnet(network, prefix, type)
  return block.check(address, type)
}

// A web page at an origin, for Node: fetch by a browser's rules for what a page may send and read, an event source, and a
// local storage that outlives a provider. The page asks one address, as behind a load balancer, whatever edge is there now.
import { EventSource } from './event-source.mjs'

export const ORIGIN = 'https://shop.example'
/** The address that the page knows. */
export const FLAGS = 'http://flags.example'

const SAFE_REQUEST_HEADERS = ['accept', 'accept-language', 'content-language']
const SAFE_RESPONSE_HEADERS = ['cache-control', 'content-language', 'content-length', 'content-type', 'expires']
const list = (header) => (header ?? '').toLowerCase().split(',').map((name) => name.trim()).filter(Boolean)

/** Opens the page before the edge at `url`; `behind.url` may become another edge's. */
export function openPage(url) {
  const behind = { url }
  /** Each request of the page: its query and the tag that it named; of the answer the status, the tag, and why it may be old. */
  const requests = []
  const real = (address) => address.replace(FLAGS, behind.url)

  /** fetch as a page has it: what a preflight does not allow is not sent, and what is not exposed is not seen. */
  async function pageFetch(address, options = {}) {
    const request = new Request(address, options)
    const url = real(request.url)
    const names = [...request.headers.keys()].filter((name) => !SAFE_REQUEST_HEADERS.includes(name)).sort()
    const preflight = await fetch(url, {
      method: 'OPTIONS',
      headers: {
        Origin: ORIGIN,
        'Access-Control-Request-Method': request.method,
        'Access-Control-Request-Headers': names.join(','),
      },
    })
    const allowed = list(preflight.headers.get('access-control-allow-headers'))
    if (!preflight.ok || preflight.headers.get('access-control-allow-origin') !== ORIGIN) throw new TypeError('preflight')
    for (const name of names) if (!allowed.includes(name)) throw new TypeError(`the page may not send ${name}`)
    const headers = new Headers(request.headers)
    headers.set('Origin', ORIGIN)
    const body = request.body ? await request.text() : undefined
    const response = await fetch(url, { method: request.method, headers, body })
    if (response.headers.get('access-control-allow-origin') !== ORIGIN) throw new TypeError('the page may not read this')
    const exposed = [...SAFE_RESPONSE_HEADERS, ...list(response.headers.get('access-control-expose-headers'))]
    const seen = new Headers([...response.headers].filter(([name]) => exposed.includes(name)))
    const known = headers.get('if-none-match')
    const stale = seen.get('x-splitstream-stale')
    requests.push({ query: new URL(url).search, status: response.status, known, tag: seen.get('etag'), stale })
    const empty = [204, 304].includes(response.status)
    return new Response(empty ? null : await response.text(), { status: response.status, headers: seen })
  }

  const stored = new Map()
  globalThis.localStorage = {
    getItem: (key) => stored.get(key) ?? null,
    setItem: (key, value) => void stored.set(key, String(value)),
    removeItem: (key) => void stored.delete(key),
  }
  globalThis.document = Object.assign(new EventTarget(), { visibilityState: 'visible' })
  const page = new EventTarget()
  globalThis.addEventListener = page.addEventListener.bind(page)
  globalThis.removeEventListener = page.removeEventListener.bind(page)
  /** The page is hidden, and may be closed. */
  const hide = () => {
    globalThis.document.visibilityState = 'hidden'
    globalThis.document.dispatchEvent(new Event('visibilitychange'))
    page.dispatchEvent(new Event('pagehide'))
  }
  globalThis.EventSource = EventSource
  EventSource.at = real
  return { behind, requests, pageFetch, stored, hide }
}

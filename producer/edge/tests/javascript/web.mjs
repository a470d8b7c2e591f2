// The edge with the unmodified OpenFeature SDK for web pages, its OFREP provider, and our hook, as a page at an origin has
// them: with a browser's local storage, event source and rules for what a page may send and read.
//
// Usage: node web.mjs URL TOKEN HOOK (run where node_modules has the packages)
import assert from 'node:assert/strict'
import { ask, load, within } from './checks.mjs'
import { EventSource } from './event-source.mjs'

const [url, token, hook] = process.argv.slice(2)
const ORIGIN = 'https://shop.example'
const SAFE_REQUEST_HEADERS = ['accept', 'accept-language', 'content-language']
const SAFE_RESPONSE_HEADERS = ['cache-control', 'content-language', 'content-length', 'content-type', 'expires']
const list = (header) => (header ?? '').toLowerCase().split(',').map((name) => name.trim()).filter(Boolean)

/** Each request of the page, with its answer's status. */
const requests = []

/** fetch as a page has it: what a preflight does not allow is not sent, and what is not exposed is not seen. */
async function pageFetch(address, options = {}) {
  const request = new Request(address, options)
  const names = [...request.headers.keys()].filter((name) => !SAFE_REQUEST_HEADERS.includes(name)).sort()
  const preflight = await fetch(request.url, {
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
  const response = await fetch(request.url, { method: request.method, headers, body })
  if (response.headers.get('access-control-allow-origin') !== ORIGIN) throw new TypeError('the page may not read this')
  const exposed = [...SAFE_RESPONSE_HEADERS, ...list(response.headers.get('access-control-expose-headers'))]
  const seen = new Headers([...response.headers].filter(([name]) => exposed.includes(name)))
  const path = new URL(request.url)
  requests.push({ path: path.pathname, query: path.search, status: response.status, known: headers.get('if-none-match') })
  const empty = [204, 304].includes(response.status)
  return new Response(empty ? null : await response.text(), { status: response.status, headers: seen })
}

const stored = new Map()
globalThis.localStorage = {
  getItem: (key) => stored.get(key) ?? null,
  setItem: (key, value) => void stored.set(key, String(value)),
  removeItem: (key) => void stored.delete(key),
}
globalThis.EventSource = EventSource

const { OpenFeature, ProviderEvents } = load('@openfeature/web-sdk')
const { OFREPWebProvider } = load('@openfeature/ofrep-web-provider')
const { ExposureHook, Reporter } = await import(hook)

const provider = () =>
  new OFREPWebProvider({
    baseUrl: url,
    headers: [['Authorization', `Bearer ${token}`]],
    fetchImplementation: pageFetch,
  })
const dropped = []
const reporter = new Reporter({
  endpoint: url,
  token,
  fetch: pageFetch,
  flushIntervalMs: 60_000,
  onDropped: (event, why) => dropped.push([event, why]),
})
OpenFeature.addHooks(new ExposureHook(reporter))
await OpenFeature.setContext({ targetingKey: 'page-1', age: 20, country: 'DE' })
await OpenFeature.setProviderAndWait(provider())
const client = OpenFeature.getClient()

// Every type.
assert.equal(client.getBooleanValue('on-sale', false), true)
assert.equal(client.getStringValue('greeting', 'x'), 'hello')
assert.equal(client.getNumberValue('retries', 0), 3)
assert.equal(client.getNumberValue('factor', 0), 1)
assert.deepEqual(client.getObjectValue('layout', {}), { columns: [1, 2.5, null], title: 'w' })
assert.equal(client.getStringDetails('nobody', 'x').errorCode, 'FLAG_NOT_FOUND')
assert.equal(client.getStringDetails('by-account', 'x').errorCode, 'TARGETING_KEY_MISSING')
assert.equal(reporter.counts.waiting, 0)

// The hook reports a read once; a conversion goes the same way.
const read = client.getStringDetails('checkout', 'x')
assert.equal(read.reason, 'SPLIT')
for (let repeat = 0; repeat < 5; repeat += 1) client.getStringValue('checkout', 'x')
assert.equal(reporter.counts.waiting, 1)
reporter.conversion('purchase', OpenFeature.getContext(), { value: 19.99, metadata: { browser: 'node' } })
assert.equal(await reporter.flush(), true)
assert.deepEqual(reporter.counts, { accepted: 2, refused: 0, dropped: 0, failedRequests: 0, waiting: 0 })
client.getStringValue('checkout', 'x')
assert.equal(reporter.counts.waiting, 0)
// What the edge refuses is given back, and not sent again.
reporter.conversion('no key', OpenFeature.getContext())
assert.equal(await reporter.flush(), true)
assert.equal(reporter.counts.refused, 1)
assert.match(dropped[0][1], /^name: `no key` is not/)

// The event stream makes it ask again at once, which costs a 304, and again when a flag is flipped.
await within(10, 'the first push', () => requests.some(({ query, status }) => query.includes('flagConfigEtag') && status === 304))
let changed = []
client.addHandler(ProviderEvents.ConfigurationChanged, (event) => changed.push(...event.flagsChanged))
await ask('flip')
await within(10, 'the new value', () => client.getNumberValue('factor', 0) === 0.5)
// An experiment's metadata names the version of all definitions together, so it changes with each of them.
assert.deepEqual(changed.sort(), ['checkout', 'factor'])

// The provider sends the tag of the old context with the new one.
const before = requests.length
await OpenFeature.setContext({ targetingKey: 'page-1', age: 20, country: 'FR' })
await within(10, 'the values of the new context', () => client.getStringValue('greeting', 'x') === 'bonjour "ü"')
assert.ok(requests.slice(before).some(({ known, status }) => known !== null && status === 200))

// A page that is loaded again starts from the local storage, and asks whether that is current.
await OpenFeature.clearProviders()
const again = requests.length
await OpenFeature.setProviderAndWait(provider())
const cached = OpenFeature.getClient().getNumberDetails('factor', 0)
assert.deepEqual([cached.value, cached.reason], [0.5, 'CACHED'])
await within(10, 'the stored flags are found current', () => requests.slice(again).some(({ status }) => status === 304))
await OpenFeature.close()
await reporter.close()
console.log('web: all checks passed')
process.exit(0)

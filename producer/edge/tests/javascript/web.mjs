// The edge with the unmodified OpenFeature SDK for web pages, its OFREP provider, and our hook, as a page at an origin has
// them: with a browser's local storage, event source and rules for what a page may send and read.
//
// Usage: node web.mjs HOOK CASES URL TOKEN (run where node_modules has the packages)
import assert from 'node:assert/strict'
import { ask, load, within } from './checks.mjs'
import { conforms, read as readCase } from './conformance.mjs'
import { FLAGS, openPage } from './page.mjs'

const [hook, cases, url, token] = process.argv.slice(2)
const { requests, pageFetch, hide } = openPage(url)

const { OpenFeature, ProviderEvents, ProviderStatus } = load('@openfeature/web-sdk')
const { OFREPWebProvider } = load('@openfeature/ofrep-web-provider')
const { ExposureHook, Reporter } = await import(hook)

const provider = (options = {}, shown = token) =>
  new OFREPWebProvider({
    baseUrl: FLAGS,
    headers: [['Authorization', `Bearer ${shown}`]],
    fetchImplementation: pageFetch,
    ...options,
  })

// The cases, without the local storage: it would answer with the values of the context before at first.
await OpenFeature.setProviderAndWait('cases', provider({ cacheMode: 'disabled', changeDetection: 'none' }))
await conforms('web', cases, async (given) => {
  await OpenFeature.setContext('cases', given.context ?? {})
  return readCase(OpenFeature.getClient('cases'), given)
})
// A wrong token is fatal.
await assert.rejects(OpenFeature.setProviderAndWait('stranger', provider({}, 'wrong')))
const stranger = OpenFeature.getClient('stranger')
assert.equal(stranger.providerStatus, ProviderStatus.FATAL)
assert.equal(stranger.getBooleanDetails('banner', false).errorCode, 'PROVIDER_FATAL')
requests.length = 0

const dropped = []
const reporter = new Reporter({
  endpoint: FLAGS,
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
assert.match(dropped[0][1], /^key: `no key` is not/)

// The event stream makes it ask again at once, which costs a 304, and again when a flag is flipped.
await within(10, 'the first push', () => requests.some(({ query, status }) => query.includes('flagConfigEtag') && status === 304))
let changed = []
client.addHandler(ProviderEvents.ConfigurationChanged, (event) => changed.push(...event.flagsChanged))
await ask('flip')
await within(10, 'the new value', () => client.getNumberValue('factor', 0) === 0.5)
// A handler is called after the values can be read.
await within(10, 'the change is told', () => changed.length > 0)
// An experiment's metadata names the version of all definitions together, so it changes with each of them.
assert.deepEqual(changed.sort(), ['checkout', 'factor', 'sign-up'])
await ask('kill')
await within(10, 'the variant of the kill switch', () => !client.getBooleanValue('on-sale', true))

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

// What waits is not lost by a token that is refused, nor by a batch that is too large for this edge.
const errors = []
let shown = 'wrong'
const options = { endpoint: FLAGS, fetch: pageFetch, flushIntervalMs: 60_000 }
const patient = new Reporter({ ...options, token: () => shown, onError: (why, status) => errors.push(status) })
for (let number = 0; number < 30; number += 1) patient.conversion('kept', { targetingKey: 'page-1' })
assert.equal(await patient.flush(), false)
assert.deepEqual([errors, patient.counts.waiting], [[401], 30])
shown = token
const sent = requests.length
assert.equal(await patient.flush(), true)
assert.deepEqual(patient.counts, { accepted: 30, refused: 0, dropped: 0, failedRequests: 1, waiting: 0 })
assert.deepEqual(requests.slice(sent).map(({ status }) => status), [413, 413, 200, 200, 413, 200, 200])
await patient.close()

// Nor by a page that is closed while a request is under way, which goes with it.
const lost = []
const ofPage = (address, request) =>
  request.keepalive ? pageFetch(address, request) : new Promise((resolve, reject) => lost.push(reject))
const leaving = new Reporter({ ...options, token, fetch: ofPage })
leaving.conversion('kept', { targetingKey: 'page-1' })
const flush = leaving.flush()
leaving.conversion('kept', { targetingKey: 'page-1' })
hide()
await within(10, 'what was sent last', () => leaving.counts.accepted === 2)
for (const reject of lost) reject(new TypeError('the page is gone'))
assert.equal(await flush, true)
console.log('web: all checks passed')
process.exit(0)

// A page that outlives edges: its local storage has the flags, their tag and the address of the event stream for thirty days,
// while the edge is killed, starts from its snapshot without Kafka, or serves a log that was made anew.
//
// Usage: node restarts.mjs URL TOKEN (run where node_modules has the packages)
import assert from 'node:assert/strict'
import { ask, load, within } from './checks.mjs'
import { EventSource } from './event-source.mjs'
import { FLAGS, openPage } from './page.mjs'

const [url, token] = process.argv.slice(2)
const { behind, requests, pageFetch, stored } = openPage(url)
const { OpenFeature, ProviderEvents } = load('@openfeature/web-sdk')
const { OFREPWebProvider } = load('@openfeature/ofrep-web-provider')

const context = { targetingKey: 'page-1', age: 20 }
const changes = []
let stale = 0
OpenFeature.addHandler(ProviderEvents.ConfigurationChanged, ({ flagsChanged }) => changes.push(flagsChanged))
OpenFeature.addHandler(ProviderEvents.Stale, () => (stale += 1))
await OpenFeature.setContext(context)

/** The page is loaded: a new provider, before the storage that is there. Returns the requests from then on. */
async function loadPage() {
  await OpenFeature.clearProviders()
  const before = requests.length
  const headers = [['Authorization', `Bearer ${token}`]]
  await OpenFeature.setProviderAndWait(new OFREPWebProvider({ baseUrl: FLAGS, headers, fetchImplementation: pageFetch }))
  return () => requests.slice(before)
}

/** Asks for something that ends with an edge at another address. */
async function move(what) {
  behind.url = await ask(what)
}

const factor = () => OpenFeature.getClient().getNumberDetails('factor', 0)
const tag = () => JSON.parse([...stored.values()][0]).etag
/** Waits until the storage has the tag of another answer than `known`: it is written after the values can be read. */
async function nextTag(known) {
  await within(10, 'the tag of the next answer', () => tag() !== known)
  return tag()
}
const version = (of) => of.replaceAll('"', '').split('.').slice(0, 3).join('.')

// Loaded for the first time: an answer, and a push of what it has already.
const first = await loadPage()
assert.deepEqual([factor().value, factor().reason], [1, 'STATIC'])
await within(10, 'the first push', () => first().some(({ query, status }) => query.includes('flagConfigEtag') && status === 304))
assert.deepEqual(EventSource.connects, [''])
const firstTag = tag()

// The edge is killed and Kafka is gone; a new one starts from the snapshot. The stream says where it was, so nothing is pushed.
const quiet = requests.length
await move('restart without kafka')
await within(20, 'the stream is connected again', () => EventSource.connects.at(-1) === version(firstTag) && EventSource.isOpen())
assert.ok(stale > 0, 'the page was told that its flags may be old')
await new Promise((resolve) => setTimeout(resolve, 200))
assert.deepEqual(requests.slice(quiet), [])
// A page that is loaded meanwhile has the same tag, and gets a 304 from the snapshot.
const fromSnapshot = await loadPage()
assert.deepEqual([factor().value, factor().reason], [1, 'CACHED'])
await within(10, 'a 304 from the snapshot', () => fromSnapshot().some(({ status }) => status === 304))
assert.ok(fromSnapshot().every(({ known, tag }) => known === firstTag && tag === firstTag), JSON.stringify(fromSnapshot()))
assert.ok(fromSnapshot().every(({ stale }) => stale === 'snapshot'))

// Kafka is back, and a change is pushed on the stream that the page has from its storage.
await ask('kafka')
await ask('flip')
await within(30, 'the change', () => factor().value === 0.5)
const flippedTag = await nextTag(firstTag)
assert.equal(factor().reason, 'STATIC')

// A change that is made while no edge is there: the page learns of it by connecting again, and by nothing else.
const seen = EventSource.connects.length
await move('flip back while away')
await within(20, 'the change that was missed', () => factor().value === 1)
assert.equal(EventSource.connects[seen], version(flippedTag))
const lastTag = await nextTag(flippedTag)

// The log is made anew while the page is closed, and has fewer changes. The page's tag is of another log: never a 304.
await OpenFeature.clearProviders()
await move('a new log')
changes.length = 0
const ofNewLog = await loadPage()
assert.deepEqual([factor().value, factor().reason], [1, 'CACHED'])
await within(20, 'the flags of the new log', () => factor().value === 0.25)
assert.deepEqual(ofNewLog()[0].known, lastTag)
assert.ok(ofNewLog()[0].status === 200, JSON.stringify(ofNewLog()))
assert.ok(changes.flat().includes('factor') && changes.flat().includes('on-sale'), JSON.stringify(changes))
const newTag = await nextTag(lastTag)
const [log, number] = version(newTag).split('.')
assert.notEqual(log, version(lastTag).split('.')[0])
assert.ok(Number(number) < Number(version(lastTag).split('.')[1]), `${newTag} has smaller offsets than ${lastTag}`)

// The log is made anew under an edge that runs and before a page that is open, with the same changes at the same offsets. Only
// the log's id differs.
const open = requests.length
await ask('the same log again')
await within(60, 'the tag of the third log', () => version(tag()).split('.')[0] !== log)
assert.equal(version(tag()).split('.')[1], number)
assert.equal(factor().value, 0.25)
assert.ok(requests.slice(open).some(({ known, status }) => known === newTag && status === 200))
// What the page then has is current.
const last = await loadPage()
await within(10, 'a 304 of the third log', () => last().some(({ status }) => status === 304))
await OpenFeature.close()
console.log('restarts: all checks passed')
process.exit(0)

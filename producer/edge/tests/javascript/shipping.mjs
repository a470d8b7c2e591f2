// An experiment is shipped step by step and taken back, as pages see it that are open meanwhile: the event stream makes them ask
// again, and whoever had the variant keeps it. Nothing else makes them ask.
//
// Usage: node shipping.mjs URL TOKEN (run where node_modules has the packages)
import assert from 'node:assert/strict'
import { ask, load, within } from './checks.mjs'
import { FLAGS, openPage } from './page.mjs'

const [url, token] = process.argv.slice(2)
const { requests, pageFetch } = openPage(url)
const { OpenFeature, ProviderEvents } = load('@openfeature/web-sdk')
const { OFREPWebProvider } = load('@openfeature/ofrep-web-provider')

/** Finds a unit whose variant and whose share of a rollout are as wanted, without exposing it. */
async function unit(name, isWanted) {
  for (let number = 0; number < 1_000; number += 1) {
    const targetingKey = `${name}-${number}`
    const response = await fetch(`${url}/ofrep/v1/evaluate/flags/checkout`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${token}`, 'X-Splitstream-Exposure': 'off' },
      body: JSON.stringify({ context: { targetingKey, age: 20 } }),
    })
    const { variant, metadata } = await response.json()
    if (isWanted(variant, metadata.bucket_rollout < 500_000)) return targetingKey
  }
  throw new Error(`no unit is like ${name}`)
}

/** A page of a unit; `told` gets the keys of each change that it is told of. */
async function open(name, context) {
  const provider = new OFREPWebProvider({
    baseUrl: FLAGS,
    headers: [['Authorization', `Bearer ${token}`]],
    fetchImplementation: pageFetch,
  })
  const told = []
  await OpenFeature.setContext(name, context)
  await OpenFeature.setProviderAndWait(name, provider)
  const client = OpenFeature.getClient(name)
  client.addHandler(ProviderEvents.ConfigurationChanged, ({ flagsChanged }) => told.push(...flagsChanged))
  return { told, read: () => client.getStringDetails('checkout', 'x') }
}

const pages = {
  treated: await open('treated', { targetingKey: await unit('treated', (variant, isEarly) => variant === 'treatment' && !isEarly), age: 20 }),
  early: await open('early', { targetingKey: await unit('early', (variant, isEarly) => variant === 'control' && isEarly), age: 20 }),
  late: await open('late', { targetingKey: await unit('late', (variant, isEarly) => variant === 'control' && !isEarly), age: 20 }),
  child: await open('child', { targetingKey: 'child-1', age: 7 }),
}
const values = () => Object.fromEntries(Object.entries(pages).map(([name, { read }]) => [name, read().value]))
const isServed = (expected) => () => JSON.stringify(values()) === JSON.stringify(expected)

/** Does it, and waits until the pages have what is expected without having asked by themselves. */
async function after(what, expected) {
  for (const page of Object.values(pages)) page.told.length = 0
  const before = requests.length
  const was = values()
  await ask(what)
  await within(10, `${what}: ${JSON.stringify(expected)}`, isServed(expected)).catch((error) => {
    throw new Error(`${error.message}; it is ${JSON.stringify(values())}`)
  })
  // A page is told after it has the values.
  const changed = Object.keys(pages).filter((name) => was[name] !== expected[name])
  await within(10, `${what}: the pages are told`, () => changed.every((name) => pages[name].told.length > 0))
  for (const { query } of requests.slice(before)) assert.match(query, /flagConfigEtag=/, 'the event stream made it ask')
}

// The streams have said where they are.
const first = () => requests.filter(({ query }) => query.includes('flagConfigEtag')).length
await within(10, 'each page is in touch', () => first() >= Object.keys(pages).length)
assert.deepEqual(values(), { treated: 'green', early: 'blue', late: 'blue', child: 'blue' })
assert.equal(pages.treated.read().reason, 'SPLIT')

await after('ship to half of the targeted', { treated: 'green', early: 'green', late: 'blue', child: 'blue' })
assert.deepEqual(pages.early.told, ['checkout'])
assert.equal(pages.early.read().variant, 'treatment')
await after('ship', { treated: 'green', early: 'green', late: 'green', child: 'green' })
assert.equal(pages.child.read().reason, 'STATIC')
await after('rollback', { treated: 'blue', early: 'blue', late: 'blue', child: 'blue' })
for (const page of Object.values(pages)) {
  assert.deepEqual(page.told, ['checkout'])
  assert.equal(page.read().variant, 'control')
}
// And once more: a rollback is not the end.
await after('ship', { treated: 'green', early: 'green', late: 'green', child: 'green' })
await OpenFeature.close()
console.log('shipping: all checks passed')
process.exit(0)

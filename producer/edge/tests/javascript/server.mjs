// The edge with the unmodified OpenFeature SDK for servers and its OFREP provider.
//
// Usage: node server.mjs CASES URL TOKEN (run where node_modules has the packages)
import assert from 'node:assert/strict'
import { ask, load, within } from './checks.mjs'
import { conforms, read } from './conformance.mjs'

const { OpenFeature } = load('@openfeature/server-sdk')
const { OFREPProvider } = load('@openfeature/ofrep-provider')

const [cases, url, token] = process.argv.slice(2)
const provider = (shown) => new OFREPProvider({ baseUrl: url, headers: [['Authorization', `Bearer ${shown}`]] })
await OpenFeature.setProviderAndWait(provider(token))
const client = OpenFeature.getClient()
await conforms('server', cases, (given) => read(client, given, given.context ?? {}))
const adult = { targetingKey: 'server-1', age: 20 }

// Every type, with its reason and variant.
const details = await client.getBooleanDetails('on-sale', false, {})
assert.deepEqual([details.value, details.reason, details.variant], [true, 'STATIC', 'on'])
assert.equal(await client.getBooleanValue('switched-off', true), false)
assert.equal(await client.getStringValue('greeting', 'x', { country: 'FR' }), 'bonjour "ü"')
assert.equal(await client.getNumberValue('retries', 0), 3)
assert.equal(await client.getNumberValue('factor', 0), 1)
assert.deepEqual(await client.getObjectValue('layout', {}), { columns: [1, 2.5, null], title: 'w' })
const checkout = await client.getStringDetails('checkout', 'x', adult)
assert.equal(checkout.reason, 'SPLIT')
assert.equal(checkout.flagMetadata.experiment, 'checkout')
assert.equal(checkout.flagMetadata.exposure_logged, true)
assert.equal((await client.getStringDetails('checkout', 'x', { age: 7 })).value, 'blue')

// Every error.
for (const [key, fallback, context, code] of [
  ['nobody', 'x', {}, 'FLAG_NOT_FOUND'],
  ['checkout', 'x', { age: 20 }, 'TARGETING_KEY_MISSING'],
  ['on-sale', 'x', {}, 'TYPE_MISMATCH'],
  ['checkout', 'x', { targetingKey: 'x'.repeat(257), age: 20 }, 'INVALID_CONTEXT'],
]) {
  const failed = await client.getStringDetails(key, fallback, context)
  assert.deepEqual([failed.value, failed.reason, failed.errorCode], [fallback, 'ERROR', code], key)
}
OpenFeature.setProvider('stranger', provider('wrong'))
const refused = await OpenFeature.getClient('stranger').getBooleanDetails('on-sale', false)
assert.deepEqual([refused.value, refused.reason], [false, 'ERROR'])

// A flag that is flipped and one that is killed while it runs.
await ask('flip')
await within(10, 'the new value', async () => (await client.getNumberValue('factor', 0)) === 0.5)
await ask('kill')
await within(10, 'the variant of the kill switch', async () => !(await client.getBooleanValue('on-sale', true)))
const killed = await client.getBooleanDetails('on-sale', true)
assert.deepEqual([killed.value, killed.reason, killed.variant], [false, 'STATIC', 'off'])
await OpenFeature.close()
console.log('server: all checks passed')
process.exit(0)

// The cases that every client must agree with, for the two JavaScript providers.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'

/** Evaluates each case of the file by `evaluate(case)`, which returns OpenFeature's details. */
export async function conforms(client, file, evaluate) {
  let checked = 0
  for (const shared of JSON.parse(readFileSync(file, 'utf8'))) {
    const expected = { ...shared, ...shared.except?.[client] }
    if (expected.left_out) continue
    const found = await evaluate(expected)
    assert.deepEqual(found.value, expected.value, expected.name)
    assert.equal(found.reason, expected.error ? 'ERROR' : expected.reason, expected.name)
    assert.equal(found.errorCode ?? null, expected.error ?? null, expected.name)
    assert.equal(found.flagKey, expected.flag, expected.name)
    if (expected.error) assert.ok(found.errorMessage, `${expected.name}: no message`)
    if (expected.variant) assert.equal(found.variant, expected.variant, expected.name)
    if (expected.metadata) assert.deepEqual(picked(found.flagMetadata, expected.metadata), expected.metadata, expected.name)
    checked += 1
  }
  assert.ok(checked > 40, `only ${checked} cases`)
}

/** The fields of `found` that are expected; all of it where nothing is. */
function picked(found, expected) {
  const names = Object.keys(expected)
  return names.length === 0 ? found : Object.fromEntries(names.map((name) => [name, found[name]]))
}

/** Reads a case by the SDK's method for its type. `context` is given to the SDK for servers alone. */
export function read(client, { flag, as, default: fallback }, context) {
  const given = context === undefined ? [] : [context]
  switch (as) {
    case 'boolean':
      return client.getBooleanDetails(flag, fallback, ...given)
    case 'string':
      return client.getStringDetails(flag, fallback, ...given)
    case 'object':
      return client.getObjectDetails(flag, fallback, ...given)
    default:
      return client.getNumberDetails(flag, fallback, ...given)
  }
}

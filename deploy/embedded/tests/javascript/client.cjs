// Uses the server with an unmodified @clickhouse/client; each check states what a ClickHouse server answers.
//
// Usage: node client.cjs URL (run where node_modules has the client)
'use strict'

const assert = require('node:assert/strict')
const { createRequire } = require('node:module')
const { Readable } = require('node:stream')

// The client is installed in the working directory, not in the directory of this file.
const { createClient } = createRequire(process.cwd() + '/')('@clickhouse/client')

const url = process.argv[2]

async function refused(code, promise) {
  await assert.rejects(promise, (error) => {
    assert.equal(error.code, String(code), error.message)
    return true
  })
}

async function main() {
  const client = createClient({ url })
  assert.deepEqual(await client.ping(), { success: true })

  await client.command({ query: 'CREATE TABLE js_rows (n UInt64, s String) ENGINE = MergeTree ORDER BY n' })
  const rows = Readable.from(
    (function* () {
      for (let n = 0; n < 20000; n++) yield { n: String(n), s: `row ${n} 'ü;` }
    })(),
    { objectMode: true },
  )
  const inserted = await client.insert({ table: 'js_rows', values: rows, format: 'JSONEachRow' })
  assert.equal(inserted.summary.written_rows, '20000')
  await client.insert({ table: 'js_rows', values: [{ n: '20000', s: 'last' }], format: 'JSONEachRow' })

  const counted = await client.query({ query: 'SELECT count() AS c, sum(n) AS t FROM js_rows', format: 'JSONEachRow' })
  assert.deepEqual(await counted.json(), [{ c: 20001, t: 200010000 }])

  const streamed = await client.query({ query: 'SELECT * FROM js_rows ORDER BY n', format: 'JSONEachRow' })
  let seen = 0
  for await (const piece of streamed.stream()) {
    for (const row of piece) {
      const { n } = row.json()
      assert.equal(Number(n), seen)
      seen += 1
    }
  }
  assert.equal(seen, 20001)

  const bound = await client.query({
    query: 'SELECT {s:String} AS s, {list:Array(UInt8)} AS list',
    query_params: { s: "it's \\ \n\t", list: [1, 2] },
    query_id: 'js-bound',
    format: 'JSONEachRow',
  })
  assert.equal(bound.query_id, 'js-bound')
  assert.deepEqual(await bound.json(), [{ s: "it's \\ \n\t", list: [1, 2] }])

  const raw = await client.exec({ query: 'SELECT 1 FORMAT CSV' })
  let text = ''
  for await (const piece of raw.stream) text += piece
  assert.equal(text, '1\n')

  const packed = createClient({ url, compression: { request: true, response: true } })
  await packed.insert({ table: 'js_rows', values: [{ n: '20001', s: 'packed' }], format: 'JSONEachRow' })
  const found = await packed.query({ query: "SELECT n FROM js_rows WHERE s = 'packed'", format: 'JSONCompactEachRow' })
  assert.deepEqual(await found.json(), [[20001]])
  await packed.close()

  const session = createClient({ url, session_id: 'js-session' })
  await session.command({ query: 'CREATE TEMPORARY TABLE own (n UInt8)' })
  await session.insert({ table: 'own', values: [[7]], format: 'JSONCompactEachRow' })
  const own = await session.query({ query: 'SELECT n FROM own', format: 'JSONCompactEachRow' })
  assert.deepEqual(await own.json(), [[7]])
  await session.close()

  await refused(60, client.query({ query: 'SELECT * FROM nowhere' }))
  await refused(62, client.query({ query: 'SELEC' }))
  await refused(516, createClient({ url, username: 'nobody', password: 'x' }).query({ query: 'SELECT 1' }))

  // An aborted read is cancelled in the server.
  const abort = new AbortController()
  const slow = client.query({
    query: 'SELECT sleepEachRow(1) FROM numbers(60) SETTINGS max_block_size = 1',
    query_id: 'js-aborted',
    abort_signal: abort.signal,
  })
  setTimeout(() => abort.abort(), 500)
  await assert.rejects(slow)
  const running = "SELECT count() AS c FROM system.processes WHERE query_id = 'js-aborted'"
  for (let attempt = 0; ; attempt++) {
    const [{ c }] = await (await client.query({ query: running, format: 'JSONEachRow' })).json()
    if (c === 0) break
    assert.ok(attempt < 50, 'the aborted query still runs')
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  await client.close()
  console.log('@clickhouse/client: all checks passed')
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})

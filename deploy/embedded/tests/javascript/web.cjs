// Uses the server with an unmodified @clickhouse/client-web, under a browser's rules for a page: requests that the
// page may not send are not sent, and it does not see what it may not read (https://fetch.spec.whatwg.org, CORS).
//
// Usage: node web.cjs URL (run where node_modules has the client)
'use strict'

const assert = require('node:assert/strict')
const { createRequire } = require('node:module')

// The client is installed in the working directory, not in the directory of this file.
const { createClient } = createRequire(process.cwd() + '/')('@clickhouse/client-web')

const url = process.argv[2]

const SAFE_REQUEST_HEADERS = ['accept', 'accept-language', 'content-language']
const SAFE_RESPONSE_HEADERS = ['cache-control', 'content-language', 'content-length', 'content-type', 'expires']

const list = (header) => (header ?? '').toLowerCase().split(',').map((name) => name.trim()).filter(Boolean)

/** fetch as the page at `origin` has it. */
function fetchOf(origin) {
  return async (address, options = {}) => {
    const headers = new Headers(options.headers)
    const names = [...headers.keys()].filter((name) => !SAFE_REQUEST_HEADERS.includes(name)).sort()
    if (names.length > 0) {
      const asked = {
        Origin: origin,
        'Access-Control-Request-Method': options.method,
        'Access-Control-Request-Headers': names.join(','),
      }
      const preflight = await fetch(address, { method: 'OPTIONS', headers: asked })
      await preflight.arrayBuffer()
      if (!preflight.ok || preflight.headers.get('access-control-allow-origin') !== origin) {
        throw new TypeError('Failed to fetch')
      }
      const allowed = list(preflight.headers.get('access-control-allow-headers'))
      for (const name of names) {
        if (!allowed.includes(name)) throw new TypeError(`Failed to fetch: ${name}`)
      }
    }
    headers.set('Origin', origin)
    const answer = await fetch(address, { ...options, headers, duplex: 'half' })
    if (answer.headers.get('access-control-allow-origin') !== origin) throw new TypeError('Failed to fetch')
    const visible = [...SAFE_RESPONSE_HEADERS, ...list(answer.headers.get('access-control-expose-headers'))]
    const seen = [...answer.headers].filter(([name]) => visible.includes(name))
    return new Response(answer.body, { status: answer.status, statusText: answer.statusText, headers: seen })
  }
}

async function main() {
  const client = createClient({ url, fetch: fetchOf('http://localhost:5173') })
  assert.deepEqual(await client.ping(), { success: true })
  await client.command({ query: 'CREATE TABLE web_rows (n UInt64, s String) ENGINE = MergeTree ORDER BY n' })
  await client.insert({
    table: 'web_rows',
    values: [{ n: '1', s: "it's" }, { n: '2', s: 'ü' }],
    format: 'JSONEachRow',
  })
  const found = await client.query({
    query: 'SELECT * FROM web_rows WHERE n > {from:UInt64} ORDER BY n',
    query_params: { from: 1 },
    query_id: 'web-bound',
    format: 'JSONEachRow',
  })
  assert.equal(found.query_id, 'web-bound')
  assert.deepEqual(await found.json(), [{ n: 2, s: 'ü' }])
  await assert.rejects(client.query({ query: 'SELECT * FROM nowhere' }), (error) => error.code === '60')
  await client.close()

  const foreign = createClient({ url, fetch: fetchOf('https://evil.example') })
  await assert.rejects(foreign.command({ query: 'DROP TABLE web_rows' }), /Failed to fetch/)
  await foreign.close()
  console.log('@clickhouse/client-web: all checks passed')
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})

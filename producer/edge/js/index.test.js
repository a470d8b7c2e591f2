// The reporter with an edge that answers as the test says. Run by `node --test`, and by the tests of the package.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ExposureHook, Reporter, uuidV7 } from './index.js';

const METADATA = {
  experiment: 'e', variant: 'b', unit_type: 'user', phase: 1, definition_version: 7, configuration_version: 9,
  bucket_slot: 1, bucket_rollout: 2, bucket_variant: 3, rule: 'eu', exposure_reason: 'split', other: 'x',
};

/** Waits until `isSo` returns true. */
async function within(what, isSo) {
  const end = Date.now() + 10_000;
  while (!isSo()) {
    if (Date.now() > end) throw new Error(`not within 10 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** A reporter and its requests; `answers` has, for each request, a status and the events' statuses, or returns them. */
function reporterWith(answers, options = {}) {
  const sent = [];
  const dropped = [];
  const fetch = async (url, { body }) => {
    const { events } = JSON.parse(body);
    sent.push(events);
    const given = typeof answers === 'function' ? answers(events) : answers[Math.min(sent.length, answers.length) - 1];
    const [status, statuses] = given;
    if (status === 0) throw new TypeError('no network');
    if (status >= 400 && status !== 503) return Response.json({ errorCode: 'GENERAL' }, { status });
    const each = (event, index) => ({ event_id: event.event_id, status: statuses?.[index] ?? 'accepted' });
    return Response.json({ events: events.map(each) }, { status, headers: { 'Retry-After': '1' } });
  };
  const reporter = new Reporter({
    endpoint: 'http://edge/', fetch, flushIntervalMs: 60_000, onDropped: (event, why) => dropped.push(why), ...options,
  });
  return { reporter, sent, dropped };
}

test('a read is sent once, with what the metadata says of the exposure alone', async () => {
  const { reporter, sent } = reporterWith([[200]]);
  const hook = new ExposureHook(reporter);
  for (let repeat = 0; repeat < 3; repeat += 1) {
    hook.after({ context: { targetingKey: 'u1', age: 20 } }, { flagMetadata: METADATA });
  }
  hook.after({ context: { targetingKey: 'u2' } }, { flagMetadata: METADATA });
  hook.after({ context: { targetingKey: 'u1' } }, { flagMetadata: {} });
  hook.after({ context: { targetingKey: 'u1' } }, {});
  hook.after({ context: { targetingKey: 'u3' } }, { flagMetadata: { ...METADATA, exposure_logged: true } });
  assert.equal(await reporter.flush(), true);
  const [[first, second, ...rest]] = sent;
  assert.equal(rest.length, 0);
  const { event_id: id, ts, ...fields } = first;
  const { other, ...metadata } = METADATA;
  assert.deepEqual(fields, { type: 'exposure', key: 'e', variant: 'b', metadata, targetingKey: 'u1', context: { age: 20 } });
  assert.equal(second.targetingKey, 'u2');
  assert.equal(Number.parseInt(id.replaceAll('-', '').slice(0, 12), 16), Date.parse(ts));
  assert.equal(id[14], '7');
});

test('each of several exposures is an event', async () => {
  const { reporter, sent } = reporterWith([[200]]);
  const second = Object.fromEntries(Object.entries({ ...METADATA, experiment: 'holdout' }).map(([name, value]) => [`${name}.2`, value]));
  reporter.exposure({ targetingKey: 'u1' }, { ...METADATA, ...second });
  await reporter.flush();
  assert.deepEqual(sent[0].map(({ key, metadata }) => [key, metadata.experiment]), [['e', 'e'], ['holdout', 'holdout']]);
});

test('a read in the next window of a switchback is no repeat', async () => {
  const { reporter, sent } = reporterWith([[200]]);
  const context = { targetingKey: 'u1', region: 'eu' };
  for (const window of [1767225600, 1767225600, 1767229200]) {
    reporter.exposure(context, { ...METADATA, unit_type: 'region', window_start: window });
  }
  await reporter.flush();
  assert.deepEqual(sent[0].map(({ metadata }) => metadata.window_start), [1767225600, 1767229200]);
});

test('what is not safe is sent again, unchanged', async () => {
  const { reporter, sent } = reporterWith([[0], [503, ['accepted', 'retry']], [200]]);
  reporter.conversion('one', { targetingKey: 'u1' });
  reporter.conversion('two', { targetingKey: 'u1' }, { value: '1.5' });
  assert.equal(await reporter.flush(), false);
  assert.equal(await reporter.flush(), false);
  assert.equal(reporter.counts.waiting, 1);
  assert.equal(await reporter.flush(), true);
  assert.deepEqual(sent[1], sent[0]);
  assert.deepEqual(sent[2], [sent[0][1]]);
  assert.deepEqual(reporter.counts, { accepted: 2, refused: 0, dropped: 0, failedRequests: 2, waiting: 0 });
});

test('an event that the edge cannot take yet keeps no other from being sent', async () => {
  // The edge is behind the configuration that made the events `early`.
  const answers = (events) => {
    const statuses = events.map(({ key }) => (key === 'early' ? 'retry' : 'accepted'));
    return [statuses.includes('retry') ? 503 : 200, statuses];
  };
  const { reporter, sent } = reporterWith(answers);
  for (let number = 0; number < 49; number += 1) reporter.conversion('early', { targetingKey: `u${number}` });
  assert.equal(await reporter.flush(), false);
  for (let number = 0; number < 60; number += 1) reporter.conversion('other', { targetingKey: `u${number}` });
  for (let round = 0; round < 3; round += 1) await reporter.flush();
  assert.equal(sent[0].length, 49);
  assert.deepEqual(reporter.counts, { accepted: 60, refused: 0, dropped: 0, failedRequests: 4, waiting: 49 });
});

test('what is refused is given back, and may be reported again', async () => {
  const { reporter, sent, dropped } = reporterWith([[200, ['refused']], [200]]);
  reporter.exposure({ targetingKey: 'u1' }, METADATA);
  await reporter.flush();
  assert.deepEqual(dropped, ['refused']);
  reporter.exposure({ targetingKey: 'u1' }, METADATA);
  await reporter.flush();
  assert.equal(sent.length, 2);
  assert.notEqual(sent[0][0].event_id, sent[1][0].event_id);
});

test('a wrong token is told once, and what waits is kept until a flush succeeds', async () => {
  const told = [];
  let token = 'old';
  const seen = [];
  const { reporter, sent, dropped } = reporterWith([[401], [403], [200]], {
    token: () => token, flushIntervalMs: 1, onError: (why, status) => told.push([why, status]),
  });
  reporter.conversion('one', { targetingKey: 'u1' });
  assert.equal(await reporter.flush(), false);
  // Nothing is sent by itself.
  reporter.conversion('two', { targetingKey: 'u1' });
  await new Promise((resolve) => setTimeout(resolve, 30));
  assert.equal(sent.length, 1);
  assert.equal(await reporter.flush(), false);
  assert.deepEqual(told, [['the edge answered 401: it refuses the token or the page, so events wait', 401]]);
  assert.deepEqual(reporter.counts, { accepted: 0, refused: 0, dropped: 0, failedRequests: 2, waiting: 2 });
  token = 'new';
  assert.equal(await reporter.flush(), true);
  assert.deepEqual(sent[2].map(({ key }) => key), ['one', 'two']);
  assert.deepEqual(sent[2][0], sent[0][0]);
  assert.deepEqual(dropped, []);
  // And now it sends again by itself.
  reporter.conversion('three', { targetingKey: 'u1' });
  await within('the third event', () => reporter.counts.accepted === 3);
});

test('what waits behind a wrong token is bounded', async () => {
  const { reporter, sent, dropped } = reporterWith([[403]]);
  for (let number = 0; number < 60; number += 1) reporter.conversion('one', { targetingKey: 'u1' });
  await reporter.flush();
  for (let number = 0; number < 1_000; number += 1) reporter.conversion('one', { targetingKey: 'u1' });
  assert.equal(sent.length, 1);
  assert.deepEqual([reporter.counts.waiting, reporter.counts.dropped, dropped.length], [1_000, 60, 60]);
});

test('a batch that is refused as too large is sent in parts', async () => {
  const { reporter, sent, dropped } = reporterWith((events) => [events.length > 2 ? 413 : 200]);
  for (let number = 0; number < 5; number += 1) reporter.conversion(`e${number}`, { targetingKey: 'u1' });
  assert.equal(await reporter.flush(), true);
  assert.deepEqual(sent.map((events) => events.map(({ key }) => key).join()), ['e0,e1,e2,e3,e4', 'e0,e1,e2', 'e0,e1', 'e2', 'e3,e4']);
  assert.deepEqual(reporter.counts, { accepted: 5, refused: 0, dropped: 0, failedRequests: 0, waiting: 0 });
  assert.deepEqual(dropped, []);
});

test('one event that the edge cannot take does not take others with it', async () => {
  const { reporter, dropped } = reporterWith((events) => [events.some(({ key }) => key === 'bad') ? 400 : 200]);
  for (const name of ['a', 'b', 'bad', 'c']) reporter.conversion(name, { targetingKey: 'u1' });
  assert.equal(await reporter.flush(), true);
  assert.deepEqual(dropped, ['the edge answered 400 to this event alone']);
  assert.deepEqual(reporter.counts, { accepted: 3, refused: 0, dropped: 1, failedRequests: 0, waiting: 0 });
});

test('neither an event that cannot be written nor a callback that throws fails a read', async () => {
  const logged = [];
  const { error } = console;
  console.error = (...args) => logged.push(args);
  try {
    const { reporter, sent } = reporterWith([[200]], {
      onDropped: () => {
        throw new Error('of the page');
      },
    });
    reporter.exposure({ targetingKey: 'u1', large: 1n }, METADATA);
    assert.deepEqual([reporter.counts.dropped, reporter.counts.waiting], [1, 0]);
    assert.match(logged[0][1].message, /^of the page$/);
    // It was not reported, so the next read is.
    reporter.exposure({ targetingKey: 'u1' }, METADATA);
    assert.equal(await reporter.flush(), true);
    assert.deepEqual(sent.map((events) => events.length), [1]);
  } finally {
    console.error = error;
  }
});

test('a request has a bounded number of bytes', async () => {
  const { reporter, sent } = reporterWith([[200]]);
  for (let number = 0; number < 4; number += 1) reporter.conversion('one', { targetingKey: 'u1', long: 'ü'.repeat(12_000) });
  await reporter.flush();
  assert.deepEqual(sent.map((events) => events.length), [2, 2]);
});

/** The part of a page that says that it goes away. */
function pageThatGoes() {
  const listeners = {};
  const add = (type, listener) => void (listeners[type] = listener);
  const remove = (type) => void delete listeners[type];
  globalThis.document = { visibilityState: 'visible', addEventListener: add, removeEventListener: remove };
  globalThis.addEventListener = add;
  globalThis.removeEventListener = remove;
  const gone = () => {
    for (const name of ['document', 'addEventListener', 'removeEventListener']) delete globalThis[name];
  };
  return { listeners, gone };
}

test('a page that closes during a flush sends what waits once more, and it counts once', async () => {
  const { listeners, gone } = pageThatGoes();
  try {
    const pending = [];
    const dropped = [];
    const fetch = (url, { body, keepalive }) =>
      new Promise((resolve, reject) => pending.push({ events: JSON.parse(body).events, keepalive, resolve, reject }));
    const reporter = new Reporter({ endpoint: 'http://edge', fetch, flushIntervalMs: 60_000, onDropped: (event) => dropped.push(event) });
    const accepted = ({ events }) => Response.json({ events: events.map(() => ({ status: 'accepted' })) });
    reporter.conversion('one', { targetingKey: 'u1' });
    const flush = reporter.flush();
    reporter.conversion('two', { targetingKey: 'u1' });
    // Two events of the browser, one request: it bounds what it sends for a page that is gone.
    globalThis.document.visibilityState = 'hidden';
    listeners.visibilitychange();
    listeners.pagehide();
    assert.deepEqual(pending.map(({ events, keepalive }) => [keepalive, ...events.map(({ key }) => key)]), [[false, 'one'], [true, 'one', 'two']]);
    assert.deepEqual(pending[1].events[0], pending[0].events[0]);
    // The page's own request ends with it; or, if it comes back, both are answered.
    pending[1].resolve(accepted(pending[1]));
    await within('what was sent last', () => reporter.counts.waiting === 0);
    pending[0].resolve(accepted(pending[0]));
    assert.equal(await flush, true);
    assert.deepEqual(reporter.counts, { accepted: 2, refused: 0, dropped: 0, failedRequests: 0, waiting: 0 });
    await reporter.close();
    assert.deepEqual(Object.keys(listeners), []);
    assert.deepEqual(dropped, []);
  } finally {
    gone();
  }
});

test('what could not be sent while the page was hidden is sent when it is back', async () => {
  const { listeners, gone } = pageThatGoes();
  try {
    const { reporter, sent } = reporterWith([[0], [200]], { flushIntervalMs: 60_000 });
    reporter.conversion('one', { targetingKey: 'u1' });
    listeners.pagehide();
    await within('the failure', () => reporter.counts.failedRequests === 1);
    assert.equal(reporter.counts.waiting, 1);
    assert.equal(await reporter.flush(), true);
    assert.deepEqual(sent[1], sent[0]);
    await reporter.close();
  } finally {
    gone();
  }
});

test('memory is bounded, and what is lost is said', async () => {
  const { reporter, sent, dropped } = reporterWith([[0]]);
  for (let number = 0; number < 1_010; number += 1) reporter.conversion('one', { targetingKey: 'u1' });
  assert.equal(reporter.counts.waiting, 1_000);
  assert.equal(dropped.length, 10);
  // A full queue asks for one request, and not for one with each event.
  await reporter.flush();
  assert.equal(sent.length, 1);
  await reporter.close();
  assert.equal(reporter.counts.dropped, 1_010);
});

test('an id has the time, and is another one each time', () => {
  const ids = new Set(Array.from({ length: 1_000 }, () => uuidV7(1_769_860_800_123)));
  assert.equal(ids.size, 1_000);
  for (const id of ids) assert.match(id, /^019c13ec-9e7b-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
});

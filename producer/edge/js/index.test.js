// The reporter with an edge that answers as the test says. Run by `node --test`, and by the tests of the package.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ExposureHook, Reporter, uuidV7 } from './index.js';

const METADATA = {
  experiment: 'e', variant: 'b', unit_type: 'user', phase: 1, definition_version: 7, configuration_version: 9,
  bucket_slot: 1, bucket_rollout: 2, bucket_variant: 3, rule: 'eu', exposure_reason: 'split', other: 'x',
};

/** A reporter and its requests; `answers` has, for each request, a status and the events' statuses. */
function reporterWith(answers, options = {}) {
  const sent = [];
  const dropped = [];
  const fetch = async (url, { body }) => {
    const { events } = JSON.parse(body);
    sent.push(events);
    const [status, statuses] = answers[Math.min(sent.length, answers.length) - 1];
    if (status === 0) throw new TypeError('no network');
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

test('a wrong token ends in the callback and not in a loop', async () => {
  const { reporter, sent, dropped } = reporterWith([[401]]);
  reporter.conversion('one', { targetingKey: 'u1' });
  assert.equal(await reporter.flush(), true);
  assert.equal(sent.length, 1);
  assert.deepEqual(dropped, ['the edge answered 401']);
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

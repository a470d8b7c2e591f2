// Reports what a page or a program reads and does to the edge's `track`: exposures by an OpenFeature hook, conversions by a
// call. It has no dependencies and knows no provider. An event is made once, with its id and its time, and is sent again
// unchanged until the edge has answered for it, so that it counts once however often it was sent.
//
//   const reporter = new Reporter({ endpoint: 'https://flags.example', token: '...' });
//   OpenFeature.addHooks(new ExposureHook(reporter));
//   reporter.conversion('purchase', context, { value: '19.99' });

/** Events that wait; at the bound a further one is dropped, counted and told. */
const QUEUE_MAX = 1000;
/** Events of one request; the edge takes 1,000. */
const BATCH_MAX = 50;
/** The bytes of one request, unless a single event has more. Browsers send 64 KiB at most while a page is closed. */
const BATCH_BYTES_MAX = 60_000;
/** Exposures remembered, so that a repeat is not sent; beyond it the oldest are sent again. */
const REMEMBERED_MAX = 10_000;
/** The longest time for which a repeat is not sent. */
const REMEMBERED_MS = 3_600_000;
/** The most exposures of one evaluation: an experiment and two holdouts. */
const EXPOSURES_MAX = 3;
/** The first and the longest pause after a failure. */
const RETRY_MS = [1_000, 60_000];

/** Sends events in batches and keeps those that are not safe yet. */
export class Reporter {
  #url;
  #token;
  #fetch;
  #interval;
  #timeout;
  #onDropped;
  #onError;
  /** What is not answered for, by event id. An event stays here until it is safe, refused or dropped. */
  #queue = new Map();
  #remembered = new Map();
  #timer;
  #flushing;
  #failures = 0;
  #retryAfter = 0;
  /** The status by which the edge refused the token; then nothing is sent by itself. */
  #stopped;
  #counts = { accepted: 0, refused: 0, dropped: 0, failedRequests: 0 };
  #leave = () => this.#sendLast();
  #hide = () => {
    if (globalThis.document.visibilityState === 'hidden') this.#sendLast();
  };

  /**
   * @param {object} options
   * @param {string} options.endpoint where the edge is, such as `https://flags.example`
   * @param {string | (() => string)} [options.token] a client key in a page, a server key in a server
   * @param {string} [options.trackPath] the path of `track`, from the metadata of a bulk answer
   * @param {number} [options.flushIntervalMs] how long an event waits for others, 1,000 if left out
   * @param {number} [options.timeoutMs] time for one request, 10,000 if left out
   * @param {typeof fetch} [options.fetch]
   * @param {(event: object, why: string) => void} [options.onDropped] gets every event that is given up
   * @param {(why: string, status: number) => void} [options.onError] is told that the edge refuses the token: events are kept
   *   and no longer sent by themselves, until a `flush` succeeds
   */
  constructor({
    endpoint,
    token,
    trackPath = '/ofrep/v1/track',
    flushIntervalMs = 1_000,
    timeoutMs = 10_000,
    fetch = globalThis.fetch.bind(globalThis),
    onDropped = () => {},
    onError = () => {},
  }) {
    this.#url = endpoint.replace(/\/+$/, '') + trackPath;
    this.#token = typeof token === 'function' ? token : () => token;
    this.#interval = flushIntervalMs;
    this.#timeout = timeoutMs;
    this.#fetch = fetch;
    this.#onDropped = quietly(onDropped);
    this.#onError = quietly(onError);
    // A page that is hidden may never be shown again; on some browsers only one of the two events comes.
    globalThis.document?.addEventListener?.('visibilitychange', this.#hide);
    globalThis.addEventListener?.('pagehide', this.#leave);
  }

  /** How many events became of what, and how many wait. */
  get counts() {
    return { ...this.#counts, waiting: this.#queue.size };
  }

  /** Reports that the unit of `context` did something. `value` is a number or a decimal text of up to six digits. */
  conversion(name, context, { value, metadata, experiment } = {}) {
    this.#add({ type: 'conversion', key: name, ...identified(context), value, metadata, experiment });
  }

  /** Reports that the unit of `context` has read a value with this metadata. Repeats within an hour are not sent. */
  exposure(context, metadata) {
    if (!metadata || metadata.exposure_logged === true) return;
    for (let number = 1; number <= EXPOSURES_MAX; number += 1) {
      const own = exposureOf(metadata, number === 1 ? '' : `.${number}`);
      if (!own) return;
      // Whichever of them the edge takes for the unit, another unit is another read.
      const type = own.unit_type;
      const unit = [context?.targetingKey, context?.[type], context?.[type.split('.')[0]]];
      const { variant, phase, definition_version: version, window_start: window } = own;
      const repeat = JSON.stringify([own.experiment, unit, variant, phase, version, window]);
      if (this.#isRemembered(repeat)) continue;
      const event = { type: 'exposure', key: own.experiment, variant, metadata: own, ...identified(context) };
      if (this.#add(event, repeat)) this.#remember(repeat);
    }
  }

  /**
   * Sends what waits, and returns when each event of it was answered for or a request has failed.
   * @returns {Promise<boolean>} whether nothing waits any more
   */
  flush() {
    // One flush at a time, so that a batch is not sent twice at once; who asks meanwhile gets the same outcome.
    this.#flushing ??= this.#flushAll().finally(() => {
      this.#flushing = undefined;
      if (this.#queue.size > 0) this.#startTimer();
    });
    return this.#flushing;
  }

  async #flushAll() {
    this.#stopTimer();
    let sent = true;
    while (sent && this.#queue.size > 0) sent = await this.#send(this.#batch(), false);
    return this.#queue.size === 0;
  }

  /**
   * Sends what waits while the page goes away, whether or not a flush is under way: the page takes its requests with it, but
   * not these. What is sent twice counts once. The browser takes one batch at a time; what is more waits for the page to
   * come back.
   */
  #sendLast() {
    const batch = this.#batch((entry) => !entry.leaves);
    if (batch.length === 0) return;
    for (const entry of batch) entry.leaves = true;
    this.#send(batch, true)
      .catch(() => {})
      .finally(() => {
        for (const entry of batch) entry.leaves = false;
        if (this.#queue.size > 0) this.#startTimer();
      });
  }

  /** Sends what waits once more, and stops. Events that are left go to `onDropped`. */
  async close() {
    await this.flush();
    this.#stopTimer();
    globalThis.document?.removeEventListener?.('visibilitychange', this.#hide);
    globalThis.removeEventListener?.('pagehide', this.#leave);
    for (const entry of [...this.#queue.values()]) this.#drop(entry, 'the reporter was closed');
  }

  #add(event, repeat) {
    const now = Date.now();
    const whole = withoutUndefined({ event_id: uuidV7(now), ts: new Date(now).toISOString(), ...event });
    const entry = { event: whole, repeat, leaves: false };
    try {
      entry.text = JSON.stringify(whole);
    } catch (error) {
      // A hook that throws would make the read of the flag fail.
      this.#drop(entry, `cannot be written as JSON: ${error.message}`);
      return false;
    }
    entry.bytes = new TextEncoder().encode(entry.text).length + 1;
    if (this.#queue.size >= QUEUE_MAX) {
      this.#drop(entry, `${QUEUE_MAX} events wait already`);
      return false;
    }
    this.#queue.set(whole.event_id, entry);
    const isFull = this.#queue.size >= BATCH_MAX && this.#failures === 0 && this.#stopped === undefined;
    if (isFull) this.flush().catch(() => {});
    else this.#startTimer();
    return true;
  }

  /** The first events that wait, as many as go into one request. */
  #batch(isWanted = () => true) {
    const batch = [];
    let bytes = 0;
    for (const entry of this.#queue.values()) {
      if (!isWanted(entry)) continue;
      bytes += entry.bytes;
      if (batch.length === BATCH_MAX || (batch.length > 0 && bytes > BATCH_BYTES_MAX)) break;
      batch.push(entry);
    }
    return batch;
  }

  /** Sends a batch. Returns whether the next one may be sent at once. */
  async #send(batch, keepalive) {
    let response;
    try {
      const token = this.#token();
      response = await this.#fetch(this.#url, {
        method: 'POST',
        keepalive,
        headers: { 'Content-Type': 'application/json', ...(token ? { Authorization: `Bearer ${token}` } : {}) },
        body: `{"events":[${batch.map((entry) => entry.text).join(',')}]}`,
        signal: AbortSignal.timeout(this.#timeout),
      });
      if (response.status === 200 || response.status === 503) {
        const answers = (await response.json()).events;
        if (Array.isArray(answers)) return this.#settle(batch, answers, response);
      }
    } catch {
      // No answer, or one that is none: nobody knows what became of the events, so they are sent again.
      response = undefined;
    }
    switch (response?.status) {
      case 400:
      case 413:
        return this.#sendSmaller(batch, response.status, keepalive);
      case 401:
      case 403:
        this.#stop(response.status);
    }
    this.#failed(response);
    return false;
  }

  /** The request as a whole was refused: as too large, or because of an event that cannot be read. */
  async #sendSmaller(batch, status, keepalive) {
    if (batch.length === 1) {
      if (this.#waits(batch[0])) this.#drop(batch[0], `the edge answered ${status} to this event alone`);
      return true;
    }
    const half = Math.ceil(batch.length / 2);
    for (const part of [batch.slice(0, half), batch.slice(half)]) {
      if (!(await this.#send(part, keepalive))) return false;
    }
    return true;
  }

  /** The edge answers for each event, in order. */
  #settle(batch, answers, response) {
    this.#stopped = undefined;
    let isWhole = true;
    batch.forEach((entry, index) => {
      const { status, error } = answers[index] ?? {};
      if (status !== 'accepted' && status !== 'refused') {
        isWhole = false;
        // Behind the others: an event that the edge cannot take for a while keeps none of them from being sent.
        if (this.#remove(entry)) this.#queue.set(entry.event.event_id, entry);
      } else if (this.#remove(entry)) {
        this.#counts[status] += 1;
        if (status === 'refused') {
          this.#forget(entry);
          this.#onDropped(entry.event, error ?? 'refused');
        }
      }
    });
    if (isWhole) this.#failures = 0;
    else this.#failed(response);
    return isWhole;
  }

  /** Nothing is sent by itself any more: a token that is refused once is refused each time. */
  #stop(status) {
    const isNews = this.#stopped === undefined;
    this.#stopped = status;
    this.#stopTimer();
    if (isNews) this.#onError(`the edge answered ${status}: it refuses the token or the page, so events wait`, status);
  }

  #failed(response) {
    this.#failures += 1;
    this.#counts.failedRequests += 1;
    this.#retryAfter = Number.parseInt(response?.headers?.get?.('Retry-After') ?? '', 10) * 1_000 || 0;
  }

  /** Returns whether the event still waited: another request may have settled it. */
  #remove(entry) {
    return this.#queue.delete(entry.event.event_id);
  }

  #waits(entry) {
    return this.#queue.has(entry.event.event_id);
  }

  #drop(entry, why) {
    this.#remove(entry);
    this.#counts.dropped += 1;
    this.#forget(entry);
    this.#onDropped(entry.event, why);
  }

  #startTimer() {
    if (this.#timer !== undefined || this.#stopped !== undefined) return;
    const [first, longest] = RETRY_MS;
    const pause = this.#failures === 0 ? this.#interval : Math.min(first * 2 ** (this.#failures - 1), longest);
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.flush().catch(() => {});
    }, Math.max(pause, this.#failures === 0 ? 0 : this.#retryAfter));
    // A program may end while it waits; it calls close().
    this.#timer?.unref?.();
  }

  #stopTimer() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #isRemembered(repeat) {
    const since = this.#remembered.get(repeat);
    return since !== undefined && Date.now() - since < REMEMBERED_MS;
  }

  #remember(repeat) {
    this.#remembered.delete(repeat);
    this.#remembered.set(repeat, Date.now());
    if (this.#remembered.size > REMEMBERED_MAX) this.#remembered.delete(this.#remembered.keys().next().value);
  }

  #forget(entry) {
    if (entry.repeat !== undefined) this.#remembered.delete(entry.repeat);
  }
}

/** An OpenFeature hook, for the web and the server SDK: reports each successful read of a value. */
export class ExposureHook {
  #reporter;

  constructor(reporter) {
    this.#reporter = reporter;
  }

  after(hookContext, evaluationDetails) {
    this.#reporter.exposure(hookContext.context, evaluationDetails.flagMetadata);
  }
}

/** The fields of one exposure, whose names end in `suffix` in the metadata; undefined if there is none. */
function exposureOf(metadata, suffix) {
  if (metadata[`experiment${suffix}`] === undefined) return undefined;
  const names = [
    'experiment', 'variant', 'unit_type', 'window_start', 'phase', 'definition_version',
    'configuration_version', 'bucket_slot', 'bucket_rollout', 'bucket_variant', 'rule', 'exposure_reason',
  ];
  return withoutUndefined(Object.fromEntries(names.map((name) => [name, metadata[name + suffix]])));
}

/** The callback, whose errors are its own: they neither fail a read nor keep events from being sent. */
function quietly(callback) {
  return (...args) => {
    try {
      callback(...args);
    } catch (error) {
      console.error('a callback of the reporter failed:', error);
    }
  };
}

function identified(context = {}) {
  const { targetingKey, ...attributes } = context;
  return { targetingKey, context: attributes };
}

function withoutUndefined(object) {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));
}

/** A UUID of version 7, which has the time in it. */
export function uuidV7(millis) {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  for (let at = 0; at < 6; at += 1) bytes[at] = Math.floor(millis / 2 ** (8 * (5 - at))) % 256;
  bytes[6] = 0x70 | (bytes[6] & 0x0f);
  bytes[8] = 0x80 | (bytes[8] & 0x3f);
  const text = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return [text.slice(0, 8), text.slice(8, 12), text.slice(12, 16), text.slice(16, 20), text.slice(20)].join('-');
}

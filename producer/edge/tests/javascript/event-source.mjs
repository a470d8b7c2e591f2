// The part of a browser's EventSource that a provider uses, for Node: it connects again by itself, names the last event that
// it has seen, and sends no headers of its own choice.
export class EventSource {
  /** Where an address leads. */
  static at = (url) => url
  /** Each request, with the event that it named. */
  static connects = []
  static #all = new Set()

  /** Whether one is open. */
  static isOpen = () => [...EventSource.#all].some(({ readyState }) => readyState === 1)

  readyState = 0
  #listeners = { message: [], error: [], open: [] }
  #stop = new AbortController()
  #lastEventId = ''
  #retry = 2_000

  constructor(url) {
    this.url = url
    EventSource.#all.add(this)
    this.#run()
  }

  addEventListener(type, listener) {
    this.#listeners[type].push(listener)
  }

  close() {
    this.readyState = 2
    EventSource.#all.delete(this)
    this.#stop.abort()
  }

  async #run() {
    while (this.readyState !== 2) {
      try {
        const headers = { Accept: 'text/event-stream', ...(this.#lastEventId && { 'Last-Event-ID': this.#lastEventId }) }
        EventSource.connects.push(this.#lastEventId)
        const response = await fetch(EventSource.at(this.url), { headers, signal: this.#stop.signal })
        if (response.status !== 200 || !response.headers.get('content-type').startsWith('text/event-stream')) {
          this.readyState = 2
          return this.#emit('error', {})
        }
        this.readyState = 1
        this.#emit('open', {})
        await this.#read(response.body)
      } catch {
        // The connection is gone; below it is made again.
      }
      if (this.readyState === 2) return
      this.readyState = 0
      this.#emit('error', {})
      await new Promise((resolve) => setTimeout(resolve, this.#retry))
    }
  }

  async #read(body) {
    let rest = ''
    let event = { data: [] }
    for await (const bytes of body.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + bytes).split('\n')
      rest = lines.pop()
      for (const line of lines) {
        const [, name, value] = /^([^:]*):? ?(.*)$/.exec(line)
        if (line === '') {
          if (event.data.length > 0) this.#emit(event.type ?? 'message', { data: event.data.join('\n'), lastEventId: this.#lastEventId })
          event = { data: [] }
        } else if (name === 'data') event.data.push(value)
        else if (name === 'event') event.type = value
        else if (name === 'id') this.#lastEventId = value
        else if (name === 'retry') this.#retry = Number(value)
      }
    }
  }

  #emit(type, event) {
    for (const listener of this.#listeners[type] ?? []) listener(event)
  }
}

/** Ask the server, and listen to its events. The key goes into a header, never into an address. */

export class Refusal extends Error {
  /** @param {number} status @param {string} detail */
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export class Api {
  /** @param {string} key */
  constructor(key) {
    this.key = key;
  }

  /** @param {string} path @param {RequestInit} [options] */
  async request(path, options = {}) {
    const headers = new Headers(options.headers);
    if (this.key) headers.set("Authorization", `Bearer ${this.key}`);
    return fetch(`/api/v1/${path}`, { ...options, headers, cache: "no-store", credentials: "omit" });
  }

  /** The body of an answer, and the offset of the log that it is of.
   * @param {string} path @param {RequestInit} [options] @returns {Promise<{body: any, offset: number}>} */
  async get(path, options) {
    const answer = await this.request(path, options);
    /** @type {any} */
    const body = await answer.json().catch(() => ({ detail: `the server answered ${answer.status}` }));
    if (!answer.ok) throw new Refusal(answer.status, String(body.detail));
    return { body, offset: Number(answer.headers.get("X-Log-Offset") ?? 0) };
  }

  /** @param {string} team @param {string} rest */
  static team(team, rest) {
    return `team/${encodeURIComponent(team)}/${rest}`;
  }
}

/** No word for so long, and the connection is taken for dead: the server says something every ten seconds. */
const SILENCE_MS = 22_000;
const RETRY_MS = [300, 1000, 2000, 4000, 8000];

/** `id` is where to go on: the log offset, and behind a dash the mark of the log there.
 * @typedef {{kind: string, id: string | null, data: any}} ServerEvent */

/** The event stream of a team: goes on after its last event, whatever happens in between. */
export class EventFeed {
  /**
   * @param {Api} api @param {string} team @param {number} after
   * @param {{onEvents: (events: ServerEvent[]) => void, onState: (isOpen: boolean, reason: string) => void,
   *   onLost: (refusal: Refusal) => void}} to
   */
  constructor(api, team, after, to) {
    this.api = api;
    this.team = team;
    /** Where to go on: an offset, and once the server has told it, a mark of the log. */
    this.last = String(after);
    this.to = to;
    this.heard = Date.now();
    this.isOver = false;
    this.tries = 0;
    /** @type {AbortController | null} */
    this.control = null;
    this.wake = () => {};
    void this.run();
  }

  close() {
    this.isOver = true;
    this.control?.abort();
    this.wake();
  }

  /** Called every second, and when the page is looked at again: a silent connection is given up. @param {boolean} [now] */
  check(now = false) {
    if (this.isOver) return;
    const silent = Date.now() - this.heard;
    if (silent > SILENCE_MS || (now && silent > SILENCE_MS / 2)) this.control?.abort();
    if (now) this.wake();
  }

  async run() {
    while (!this.isOver) {
      let reason = "the connection ended";
      try {
        reason = (await this.listen()) || reason;
      } catch (error) {
        if (error instanceof Refusal && error.status !== 429 && error.status < 500) {
          this.isOver = true;
          this.to.onLost(error);
          return;
        }
        reason = error instanceof Refusal ? error.message : "the server cannot be reached";
      }
      if (this.isOver) return;
      this.to.onState(false, reason);
      const wait = RETRY_MS[Math.min(this.tries, RETRY_MS.length - 1)] ?? 8000;
      this.tries += 1;
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, wait * (0.8 + 0.4 * Math.random()));
        this.wake = () => {
          clearTimeout(timer);
          resolve(undefined);
        };
      });
    }
  }

  async listen() {
    this.control = new AbortController();
    this.heard = Date.now();
    const answer = await this.api.request(Api.team(this.team, "events"), {
      headers: { Accept: "text/event-stream", "Last-Event-ID": this.last },
      signal: this.control.signal,
    });
    if (!answer.ok || !answer.body) {
      const body = await answer.json().catch(() => ({}));
      throw new Refusal(answer.status, String(body.detail ?? answer.status));
    }
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    let reason = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return reason;
      this.heard = Date.now();
      this.tries = 0;
      this.to.onState(true, "");
      const blocks = (text + value).split("\n\n");
      text = blocks.pop() ?? "";
      const events = blocks.map(parseEvent).filter((event) => event !== null);
      for (const event of events) {
        if (event.id !== null) this.last = event.id;
        if (event.kind === "end") reason = String(event.data.detail);
        // Another log: what is shown cannot be gone on with.
        if (event.kind === "reset") throw new Refusal(400, String(event.data.detail));
      }
      if (events.length) this.to.onEvents(events);
    }
  }
}

/** @param {string} block @returns {ServerEvent | null} */
function parseEvent(block) {
  let kind = "message";
  let id = null;
  let mark = "";
  let data = "";
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) kind = line.slice(7);
    else if (line.startsWith("id: ")) id = line.slice(4);
    else if (line.startsWith("mark: ")) mark = `-${line.slice(6)}`;
    else if (line.startsWith("data: ")) data += line.slice(6);
  }
  return data ? { kind, id: id === null ? null : id + mark, data: JSON.parse(data) } : null;
}

// What the server shows, kept up to date by server-sent events. They are read by `fetch`, since the
// browser's EventSource sends no token.

const TOKEN = "xmpp-edge-token";
const LONGEST_PAUSE = 30000;
// The server sends something every 15 s: after three times that, nobody is there any more, whatever the connection looks like.
const SILENCE = 45000;

export class Board {
  // `changed(sections)` after each update; `live(text, refused)` when the connection comes and goes.
  constructor({ changed, live }) {
    this.sections = new Map();
    this.changed = changed;
    this.live = live;
    this.pause = 1000;
    this.touched = new Set();
    this.running = null;
  }

  list(section) {
    return [...(this.sections.get(section) ?? new Map()).entries()];
  }

  headers() {
    const token = sessionStorage.getItem(TOKEN);
    return token ? { Authorization: `Bearer ${token}` } : {};
  }

  setToken(token) {
    sessionStorage.setItem(TOKEN, token);
    this.pause = 1000;
    this.start();
  }

  start() {
    this.running?.abort();
    this.running = new AbortController();
    this.follow(this.running.signal);
  }

  async follow(signal) {
    while (!signal.aborted) {
      const silence = new Silence(signal);
      try {
        const answer = await fetch("page/events", { headers: this.headers(), cache: "no-store", signal: silence.signal });
        if (answer.status === 401) {
          this.live((await answer.text()).trim(), true);
          return;
        }
        if (!answer.ok) throw new Error((await answer.text()).trim());
        await this.read(answer.body.getReader(), silence);
        if (signal.aborted) return;
        this.live("The connection ended; it is tried again", false);
      } catch (error) {
        if (signal.aborted) return;
        const cause = silence.fell ? `nothing came for ${SILENCE / 1000} s` : error.message;
        this.live(`No connection: ${cause}; what is shown may be old; it is tried again`, false);
      } finally {
        silence.end();
      }
      await new Promise((resolve) => setTimeout(resolve, this.pause));
      this.pause = Math.min(this.pause * 2, LONGEST_PAUSE);
    }
  }

  async read(reader, silence) {
    const decoder = new TextDecoder();
    let rest = "";
    while (!silence.signal.aborted) {
      const { done, value } = await reader.read();
      if (done) return;
      silence.broken();
      const events = (rest + decoder.decode(value, { stream: true })).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        const lines = event.split("\n").filter((line) => line.startsWith("data:"));
        if (lines.length > 0) this.take(JSON.parse(lines.map((line) => line.slice(5)).join("\n")));
      }
    }
  }

  take(update) {
    if (update.whole) {
      for (const section of this.sections.keys()) this.touched.add(section);
      this.sections.clear();
    }
    for (const [section, key] of update.gone ?? []) {
      this.sections.get(section)?.delete(key);
      this.touched.add(section);
    }
    for (const [section, key, value] of update.records) {
      if (!this.sections.has(section)) this.sections.set(section, new Map());
      this.sections.get(section).set(key, value);
      this.touched.add(section);
    }
    if (update.more) return;
    this.pause = 1000;
    const touched = this.touched;
    this.touched = new Set();
    this.changed(touched);
  }
}

// Ends a request to which nothing comes for SILENCE, or when `outer` ends.
class Silence {
  constructor(outer) {
    this.fell = false;
    this.controller = new AbortController();
    this.signal = this.controller.signal;
    this.outer = outer;
    this.abort = () => this.controller.abort();
    outer.addEventListener("abort", this.abort);
    this.broken();
  }

  // Something came.
  broken() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.fell = true;
      this.abort();
    }, SILENCE);
  }

  end() {
    clearTimeout(this.timer);
    this.outer.removeEventListener("abort", this.abort);
  }
}

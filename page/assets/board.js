// What the server shows, kept up to date by server-sent events. They are read by `fetch`, since the
// browser's EventSource sends no token.

const TOKEN = "xmpp-edge-token";
const LONGEST_PAUSE = 30000;

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
      try {
        const answer = await fetch("page/events", { headers: this.headers(), cache: "no-store", signal });
        if (answer.status === 401) {
          this.live((await answer.text()).trim(), true);
          return;
        }
        if (!answer.ok) throw new Error((await answer.text()).trim());
        await this.read(answer.body.getReader(), signal);
        this.live("The connection ended; it is tried again", false);
      } catch (error) {
        if (signal.aborted) return;
        this.live(`No connection: ${error.message}; it is tried again`, false);
      }
      await new Promise((resolve) => setTimeout(resolve, this.pause));
      this.pause = Math.min(this.pause * 2, LONGEST_PAUSE);
    }
  }

  async read(reader, signal) {
    const decoder = new TextDecoder();
    let rest = "";
    while (!signal.aborted) {
      const { done, value } = await reader.read();
      if (done) return;
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

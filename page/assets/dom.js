// Elements from text. Nothing here, or anywhere on the page, makes markup of text: names and texts come
// from peers.

// What steers how a line is laid out, or is not seen: shown by its number, so that it can hide nothing.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

export function visible(text) {
  return String(text).replace(UNSEEN, (one) => `\\u{${one.codePointAt(0).toString(16)}}`);
}

// An element; `content` is text, an element, or a list of both.
export function element(name, properties = {}, content = []) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value !== undefined && value !== null) made.setAttribute(key, value);
  }
  for (const part of Array.isArray(content) ? content : [content]) {
    if (part === null || part === undefined) continue;
    made.append(part instanceof Node ? part : visible(part));
  }
  return made;
}

// Text that came from outside: its direction ends where it ends.
export function foreign(text) {
  return element("bdi", { class: "mono" }, text);
}

// Pairs of term and description; those without a description are left out.
export function definitions(pairs) {
  const parts = [];
  for (const [term, description] of pairs) {
    if (description === null || description === undefined || description === "") continue;
    parts.push(element("dt", {}, term), element("dd", {}, description));
  }
  return element("dl", {}, parts);
}

export function table(caption, heads, rows) {
  const head = element("tr", {}, heads.map((text) => element("th", { scope: "col" }, text)));
  const body = rows.map((cells) => element("tr", {}, cells.map((cell) => element("td", {}, [cell].flat()))));
  const whole = element("table", {}, [
    element("caption", { class: "unseen" }, caption),
    element("thead", {}, head),
    element("tbody", {}, body),
  ]);
  return element("div", { class: "wide", role: "group", "aria-label": caption, tabindex: "0" }, whole);
}

export function count(number, word) {
  return `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;
}

export function bytes(number) {
  if (number < 10240) return `${number} B`;
  if (number < 10485760) return `${Math.round(number / 1024)} KiB`;
  return `${Math.round(number / 1048576)} MiB`;
}

// A time as it is, and how long ago.
export function time(text) {
  if (!text) return null;
  return element("time", { datetime: text, title: text }, age(text));
}

// What is shown of times, once more: they grow older by themselves.
export function tellTimes() {
  for (const one of document.querySelectorAll("time")) {
    const text = age(one.dateTime);
    if (one.textContent !== text) one.textContent = text;
  }
}

function age(text) {
  const seconds = Math.round((Date.now() - Date.parse(text)) / 1000);
  return `${span(Math.abs(seconds))} ${seconds < 0 ? "from now" : "ago"}`;
}

function span(seconds) {
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

// The end of a certificate, by days left.
export function daysLeft(text) {
  if (!text) return null;
  const days = Math.floor((Date.parse(text) - Date.now()) / 86400000);
  const kind = days < 0 ? "bad" : days < 14 ? "warn" : "good";
  const words = days < 0 ? "expired" : `${count(days, "day")} left`;
  return element("span", { class: kind }, [words, element("span", { class: "quiet" }, ` (${text.slice(0, 10)})`)]);
}

// The steps of an attempt, the failed one with what to do.
export function steps(attempt) {
  if (attempt.length === 0) return element("p", { class: "quiet" }, "No attempt yet.");
  const rows = attempt.map((step) => [
    step.step,
    element("span", { class: step.outcome === "Ok" ? "good" : "bad" }, step.outcome),
    step.direction,
    step.address ? foreign(step.address) : "",
    [foreign(step.text), step.outcome !== "Ok" && step.remedy ? element("p", { class: "remedy" }, `What to do: ${step.remedy}`) : null],
    [time(step.time), step.replica ? ` on ${step.replica}` : null],
  ]);
  return table("Steps of the last attempt", ["Step", "Outcome", "Direction", "Address", "What was seen", "When"], rows);
}

export function conditions(list) {
  const rows = list.map((one) => [
    one.type,
    element("span", { class: one.status === "True" ? "good" : one.status === "False" ? "bad" : "off" }, one.status),
    one.reason,
    foreign(one.message),
    time(one.since),
  ]);
  return table("Conditions", ["Condition", "Status", "Reason", "Message", "Since"], rows);
}

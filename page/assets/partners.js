// The table of partners: a row each, a cell for each pool, and below a row, opened by its name, why.
//
// Rows are made for what is seen, and made again only where their record changed.

import { bytes, conditions, count, daysLeft, definitions, element, foreign, steps, time } from "./dom.js";

const ROWS = 200;
// More pools than these share one column.
const COLUMNS = 6;
const RANK = { Failing: 0, Suspended: 1, Connected: 2, Idle: 3 };

export class Partners {
  // `probe(domain, pool)` has a partner probed.
  constructor(navigate, probe) {
    this.head = document.getElementById("partners-head");
    this.body = document.getElementById("partners-body");
    this.more = document.getElementById("more");
    this.navigate = navigate;
    this.probe = probe;
    this.view = { filter: "", state: "", sort: "state", open: new Set() };
    this.limit = ROWS;
    this.rows = new Map();
    this.records = [];
    this.pools = [];
    this.more.addEventListener("click", () => {
      this.limit += ROWS;
      this.show();
    });
  }

  setView(view) {
    this.view = view;
    this.limit = ROWS;
    this.show();
  }

  setRecords(records, pools) {
    this.records = records.map(([key, value]) => ({ key, value, text: searched(key, value), worst: worst(value) }));
    if (pools.join() !== this.pools.join()) this.rows.clear();
    this.pools = pools;
    this.show();
  }

  show() {
    const words = this.view.filter.toLowerCase().split(/\s+/).filter(Boolean);
    const found = this.records.filter(
      (one) => words.every((word) => one.text.includes(word)) && (!this.view.state || one.worst === this.view.state),
    );
    found.sort(order(this.view.sort));
    this.showHead();
    const wanted = [];
    for (const record of found.slice(0, this.limit)) wanted.push(...this.row(record));
    place(this.body, wanted);
    this.more.hidden = found.length <= this.limit;
    this.more.textContent = `Show ${Math.min(ROWS, found.length - this.limit)} more`;
    const failing = this.records.filter((one) => one.worst === "Failing").length;
    const text = `${count(found.length, "partner")} of ${this.records.length.toLocaleString("en")}; ${failing} failing`;
    const shown = document.getElementById("count");
    if (shown.textContent !== text) shown.textContent = text;
    const seen = new Set(found.slice(0, this.limit).map((one) => one.key));
    for (const key of this.rows.keys()) if (!seen.has(key)) this.rows.delete(key);
  }

  // Columns: what is sorted by, and the heading.
  columns() {
    const pools = this.pools.length > COLUMNS ? [["state", "Pools"]] : this.pools.map((pool) => [`pool:${pool}`, pool]);
    return [["name", "Partner"], ["domain", "Domain"], ["type", "Type"], ["state", "State"], ...pools, ["connected", "Last connected"]];
  }

  showHead() {
    const columns = this.columns();
    const mark = `${columns.join()}|${this.view.sort}`;
    if (this.head.dataset.mark === mark) return;
    this.head.dataset.mark = mark;
    const [by, down] = [this.view.sort.replace(/^-/, ""), this.view.sort.startsWith("-")];
    const focused = this.head.contains(document.activeElement) ? document.activeElement.dataset.sort : null;
    const heads = columns.map(([sort, text]) => {
      const own = sort === by;
      const button = element("button", { type: "button", "data-sort": sort }, [text, own ? element("span", { "aria-hidden": "true" }, down ? " ▼" : " ▲") : null]);
      button.addEventListener("click", () => this.navigate({ sort: own && !down ? `-${sort}` : sort }));
      return element("th", { scope: "col", "aria-sort": own ? (down ? "descending" : "ascending") : null }, button);
    });
    this.head.replaceChildren(...heads);
    if (focused) [...this.head.querySelectorAll("button")].find((one) => one.dataset.sort === focused)?.focus();
  }

  // The row of a record, and that of its details where they are open.
  row({ key, value, worst: state }) {
    const open = this.view.open.has(key);
    const known = this.rows.get(key);
    if (known && known.value === value && known.open === open) return known.elements;
    const name = element("button", { type: "button", class: "name", "aria-expanded": String(open) }, foreign(value.name));
    name.addEventListener("click", () => this.toggle(key));
    const cells = this.pools.length > COLUMNS
      ? [element("td", {}, value.cells.map((cell) => element("div", {}, [`${cell.pool}: `, ...summary(cell)])))]
      : this.pools.map((pool) => {
        const cell = value.cells.find((one) => poolKey(value, one) === pool);
        return element("td", {}, cell ? summary(cell) : "");
      });
    const last = value.cells.map((cell) => cell.lastConnectedTime).filter(Boolean).sort().at(-1);
    const more = value.domains.length > 1 ? ` and ${value.domains.length - 1} more` : "";
    const elements = [
      element("tr", {}, [
        element("th", { scope: "row" }, name),
        element("td", {}, [foreign(value.domains[0] ?? ""), more]),
        element("td", {}, value.partnerType),
        element("td", {}, element("span", { class: `state ${state}` }, state)),
        ...cells,
        element("td", {}, time(last) ?? "never"),
      ]),
    ];
    if (open) {
      const columns = String(this.columns().length);
      elements.push(element("tr", { class: "details" }, element("td", { colspan: columns }, details(value, this.probe))));
    }
    const focused = known?.elements[0].contains(document.activeElement);
    this.rows.set(key, { value, open, elements });
    if (focused) queueMicrotask(() => name.focus());
    return elements;
  }

  toggle(key) {
    const open = new Set(this.view.open);
    if (!open.delete(key)) open.add(key);
    this.navigate({ open });
  }
}

// Puts elements into a parent in this order, moving no more than has to be moved.
function place(parent, wanted) {
  const keep = new Set(wanted);
  for (const child of [...parent.children]) if (!keep.has(child)) child.remove();
  let next = parent.firstElementChild;
  for (const one of wanted) {
    if (one === next) next = next.nextElementSibling;
    else parent.insertBefore(one, next);
  }
}

function poolKey(value, cell) {
  return value.namespace ? `${value.namespace}/${cell.pool}` : cell.pool;
}

// The state that wants somebody most.
function worst(value) {
  const states = value.cells.map((cell) => cell.state);
  return states.sort((one, other) => RANK[one] - RANK[other])[0] ?? "Idle";
}

function searched(key, value) {
  const steps = value.cells.flatMap((cell) => cell.attempt);
  const outcomes = steps.flatMap((step) => [step.outcome, step.domain, step.address]);
  const reasons = value.conditions.map((one) => one.reason);
  return [key, value.partnerType, ...value.domains, ...outcomes, ...reasons].join(" ").toLowerCase();
}

function order(sort) {
  const down = sort.startsWith("-") ? -1 : 1;
  const by = sort.replace(/^-/, "");
  const pool = by.startsWith("pool:") ? by.slice(5) : null;
  const value = (one) => {
    if (by === "domain") return one.value.domains[0] ?? "";
    if (by === "type") return one.value.partnerType;
    if (by === "connected") return one.value.cells.map((cell) => cell.lastConnectedTime ?? "").sort().at(-1) ?? "";
    if (by === "state") return RANK[one.worst];
    if (pool !== null) return RANK[one.value.cells.find((cell) => poolKey(one.value, cell) === pool)?.state] ?? 9;
    return one.key;
  };
  return (one, other) => {
    const [first, second] = [value(one), value(other)];
    if (first < second) return -down;
    if (first > second) return down;
    return one.key < other.key ? -1 : 1;
  };
}

function failure(cell) {
  // A target that is only slow has not failed yet.
  return cell.attempt.findLast((step) => step.outcome !== "Ok" && step.outcome !== "TcpSilent");
}

function summary(cell) {
  const parts = [element("span", { class: `state ${cell.state}` }, cell.state)];
  const failed = cell.state === "Failing" ? failure(cell) : null;
  if (failed) parts.push(` ${failed.step}: ${failed.outcome}`);
  if (cell.inboundStreams + cell.outboundStreams > 0) {
    parts.push(` ${cell.inboundStreams} in, ${cell.outboundStreams} out`);
    parts.push(element("div", { class: "quiet" }, [cell.method, cell.tlsVersion].filter(Boolean).join(", ")));
  }
  if (cell.queue && cell.queue.stanzas > 0) parts.push(element("div", {}, `${count(cell.queue.stanzas, "stanza")} wait`));
  return parts;
}

function details(value, probe) {
  const parts = [
    definitions([
      ["Object", value.namespace ? `${value.namespace}/${value.name}` : value.name],
      ["Domains", value.domains.flatMap((domain) => [foreign(domain), " "])],
    ]),
  ];
  if (value.conditions.length > 0) parts.push(conditions(value.conditions));
  for (const cell of value.cells) {
    parts.push(element("h3", {}, ["Pool ", foreign(cell.pool), ": ", element("span", { class: `state ${cell.state}` }, cell.state)]));
    const failed = cell.state === "Failing" ? failure(cell) : null;
    parts.push(definitions([
      ["Failed at", failed ? [failed.step, failed.address ? " at " : null, failed.address ? foreign(failed.address) : null, `: ${failed.outcome}`] : null],
      ["What to do", failed?.remedy ? element("span", { class: "remedy" }, failed.remedy) : null],
      ["Streams", `${cell.inboundStreams} inbound, ${cell.outboundStreams} outbound`],
      ["Method", cell.method],
      ["TLS", [cell.tlsVersion, cell.tlsCipher].filter(Boolean).join(", ")],
      ["Its certificate", daysLeft(cell.peerCertificateNotAfter)],
      ["Last connected", time(cell.lastConnectedTime)],
      ["Next attempt", time(cell.nextAttemptTime)],
      ["Queue", cell.queue ? `${count(cell.queue.stanzas, "stanza")}, ${bytes(cell.queue.bytes)}` : null],
      ["Probe", cell.probe ? [cell.probe[1] === null ? "not answered" : `answered in ${cell.probe[1]} ms`, " ", time(cell.probe[0])] : null],
    ]));
    parts.push(steps(cell.attempt));
    const button = element("button", { type: "button", class: "probe" }, ["Probe now from ", foreign(cell.pool)]);
    button.addEventListener("click", () => probe(value.domains[0], poolKey(value, cell)));
    parts.push(element("p", {}, button));
  }
  return parts;
}

// The form of `/probe`: the walk to a partner's domain, now, and what was found on it.

import { daysLeft, definitions, element, foreign, table } from "./dom.js";

export class ProbeForm {
  constructor(headers) {
    this.headers = headers;
    this.form = document.getElementById("probe-form");
    this.shown = document.getElementById("probed");
    this.pool = document.getElementById("probe-pool");
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.ask();
    });
  }

  // The pools to choose from; one alone is not asked for.
  setPools(pools) {
    if (this.known === pools.join()) return;
    this.known = pools.join();
    const chosen = this.pool.value;
    this.pool.replaceChildren(...pools.map((pool) => element("option", { value: pool }, pool)));
    if (pools.includes(chosen)) this.pool.value = chosen;
    document.getElementById("probe-pool-label").hidden = pools.length < 2;
  }

  // As if somebody had filled it in.
  start(domain, pool) {
    document.getElementById("probe-domain").value = domain;
    if (pool) this.pool.value = pool;
    document.getElementById("probe-heading").focus();
    this.ask();
  }

  async ask() {
    const button = this.form.querySelector("button");
    if (button.disabled) return;
    const asked = new URLSearchParams({ domain: document.getElementById("probe-domain").value.trim() });
    if (this.pool.value) asked.set("pool", this.pool.value);
    button.disabled = true;
    this.shown.replaceChildren(element("p", {}, "Under way; it can take a minute."));
    try {
      const answer = await fetch(`probe?${asked}`, { method: "POST", headers: this.headers(), cache: "no-store" });
      const text = (await answer.text()).trim();
      this.shown.replaceChildren(...(answer.ok ? report(JSON.parse(text)) : [element("p", { class: "bad" }, text)]));
    } catch (error) {
      this.shown.replaceChildren(element("p", { class: "bad" }, `No answer: ${error.message}`));
    }
    button.disabled = false;
  }
}

function report(found) {
  const words = found.method ? `${found.method}${found.presumed ? " (presumed)" : ""}` : "none: federation fails";
  const parts = [
    element("p", {}, [
      foreign(found.domain), ": method ", element("strong", { class: found.method ? "good" : "bad" }, words),
    ]),
    element("ul", {}, found.why.map((why) => element("li", {}, foreign(why)))),
  ];
  if (found.fallback) parts.push(element("p", {}, "DNS: no SRV record, so the domain itself on port 5269."));
  if (found.services.length > 0) {
    parts.push(table("SRV records", ["Service", "Priority", "Weight", "Port", "Target"], found.services.map((one) => [
      one.directTls ? "_xmpps-server" : "_xmpp-server", one.priority, one.weight, one.port, foreign(one.target),
    ])));
  }
  if (found.dnssec) parts.push(element("p", {}, foreign(found.dnssec)));
  for (const target of found.targets) parts.push(walk(target));
  return parts;
}

function walk(target) {
  const certificate = target.certificate;
  return definitions([
    ["Address", target.address ? [foreign(target.address), target.target ? " of " : null, target.target ? foreign(target.target) : null] : null],
    ["Over", target.target ? (target.directTls ? "direct TLS" : "STARTTLS") : null],
    ["DANE", target.dane ? foreign(target.dane) : null],
    ["TLS", target.tls ? `${target.tls.version}, ${target.tls.cipher}` : null],
    ["Certificate", certificate
      ? element("span", { class: certificate.valid ? "good" : "bad" }, certificate.valid ? `valid by ${certificate.verifiedBy}` : foreign(certificate.text))
      : null],
    ["Its names", certificate ? foreign(certificate.dnsNames.join(", ")) : null],
    ["Its end", certificate ? daysLeft(certificate.notAfter) : null],
    ["Offers", target.features ? offered(target.features) : null],
    ["Broke off", target.error ? element("span", { class: "bad" }, foreign(target.error)) : null],
  ]);
}

function offered(features) {
  const parts = features.mechanisms.map((one) => `SASL ${one}`);
  if (features.dialback) parts.push("dialback");
  if (features.bidi) parts.push("bidi");
  if (features.acks) parts.push("acknowledgements");
  return parts.length > 0 ? foreign(parts.join(", ")) : "nothing";
}

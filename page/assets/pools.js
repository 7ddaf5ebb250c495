// Pools, own servers, rates and refusals: few records, made again as a whole where one changed.

import { bytes, conditions, count, daysLeft, definitions, element, foreign, steps, table, time } from "./dom.js";

export function showPools(records) {
  const cards = records.map(([key, pool]) => element("div", { class: "card" }, [
    element("h3", {}, foreign(key)),
    definitions([
      ["Site", pool.site],
      ["Replicas", pool.replicas ? `${pool.replicas[0]} of ${pool.replicas[1]} ready` : null],
      ["Configuration", pool.generation === null ? null : `generation ${pool.generation}`],
      ["Rejected", pool.rejected ? element("span", { class: "bad" }, foreign(pool.rejected)) : null],
      ["Streams", `${pool.inboundStreams} inbound, ${pool.outboundStreams} outbound`],
      ["Queues", pool.queue ? `${count(pool.queue.stanzas, "stanza")}, ${bytes(pool.queue.bytes)}` : null],
    ]),
    pool.conditions.length > 0 ? conditions(pool.conditions) : null,
    pool.certificates.length > 0
      ? table("Certificates", ["Certificate", "Ends", "Names"], [...pool.certificates]
        .sort((one, other) => (one.notAfter < other.notAfter ? -1 : 1))
        .map((one) => [one.name, daysLeft(one.notAfter), foreign(one.dnsNames.join(", "))]))
      : null,
    pool.records.length > 0
      ? table("DNS records", ["Record that should be in DNS", "What DNS answers"], pool.records.map((one) => [foreign(one.wanted), answered(one.answered)]))
      : null,
  ]));
  fill("pools", cards, "No pool.");
}

function answered(answer) {
  if (!answer) return element("span", { class: "off" }, "not asked yet");
  if (answer.state === "same") return element("span", { class: "good" }, "this record");
  if (answer.state === "nothing") return [element("span", { class: "warn" }, "nothing: "), foreign(answer.seen)];
  if (answer.seen.length === 0) return element("span", { class: "bad" }, "no such record");
  return [element("span", { class: "bad" }, "others: "), foreign(answer.seen.join("; "))];
}

export function showGateways(records) {
  const cards = records.map(([, one]) => {
    const [kind, words] = one.reachable === null ? ["off", "not tried yet"] : one.reachable ? ["good", "reachable"] : ["bad", "not reachable"];
    return element("div", { class: "card" }, [
      element("h3", {}, [foreign(one.domains.join(", ")), ": ", element("span", { class: `state ${kind}` }, words)]),
      definitions([["Pool", foreign(one.pool)], ["Address", foreign(one.address)], ["Says", one.message ? foreign(one.message) : null]]),
      one.sidecars === null ? null : sidecars(one.sidecars),
      ...(one.sip ? sip(one.sip) : []),
      one.attempt.length > 0 ? steps(one.attempt) : null,
    ]);
  });
  fill("gateways", cards, "None known.");
}

function sidecars(all) {
  if (all.length === 0) {
    return element("p", { class: "bad" }, "No sidecar is connected.");
  }
  const rows = all.map((one) => [
    foreign(one.instance),
    one.active ? "gets what comes in" : "stands by",
    one.serverUp
      ? element("span", { class: "state good" }, "up")
      : element("span", { class: "state bad" }, one.serverText ? foreign(one.serverText) : "down"),
    one.trunks.toLocaleString("en"),
    one.pairs === null ? "" : one.pairs.toLocaleString("en"),
    one.unacknowledged ? `${count(one.unacknowledged.stanzas, "stanza")}, ${bytes(one.unacknowledged.bytes)}` : "",
    one.since ? time(one.since) : "",
    one.certificateNotAfter ? daysLeft(one.certificateNotAfter) : "",
    one.version ?? "",
  ]);
  const columns = ["Sidecar", "Inbound", "Its server", "Trunks", "Pairs", "Not acknowledged", "Since", "Certificate ends", "Version"];
  return table("Sidecars", columns, rows);
}

function sip(server) {
  const words = definitions([
    ["Dialect", server.dialect],
    ...(server.sessions === null ? [] : [["Sessions", server.sessions.toLocaleString("en")]]),
    ["Last answer", server.lastAnswerTime ? time(server.lastAnswerTime) : "none yet"],
    ["Presence", `${server.watching.toLocaleString("en")} watched here for partners, ${server.watched.toLocaleString("en")} watch partners' users, ${server.pending.toLocaleString("en")} of these not answered yet`],
  ]);
  if (server.connections.length === 0) {
    return [words, element("p", { class: "bad" }, "No connection with the SIP server.")];
  }
  const rows = server.connections.map((one) => [
    one.direction,
    one.address ? foreign(one.address) : "",
    one.tlsVersion ?? "in clear",
    one.tlsCipher ?? "",
    one.peerCertificateNotAfter ? daysLeft(one.peerCertificateNotAfter) : "",
    time(one.since),
  ]);
  const more = server.connectionCount - server.connections.length;
  const title = more > 0 ? `SIP connections, and ${more.toLocaleString("en")} more` : "SIP connections";
  return [words, table(title, ["Direction", "Address", "TLS", "Cipher", "Certificate ends", "Since"], rows)];
}

export function showRates(records) {
  const figures = records.map(([, rate]) => {
    const sum = rate.counts.reduce((all, one) => all + one, 0);
    const most = Math.max(...rate.counts, 0);
    const now = rate.counts.at(-1) ?? 0;
    const words = `${perSecond(now, rate)} now, at most ${perSecond(most, rate)}, ${sum.toLocaleString("en")} in all`;
    return element("figure", {}, [
      plot(rate.counts, Math.max(most, 1), `${rate.label}: ${words}`),
      element("figcaption", {}, [element("strong", {}, rate.label), ` ${words}`]),
    ]);
  });
  fill("rates", figures, "None here: the page of each pod has its own, and of the operator's replicas the one that leads.");
}

function perSecond(counted, rate) {
  return `${(counted / rate.seconds).toLocaleString("en", { maximumFractionDigits: 1 })}/s`;
}

const SVG = "http://www.w3.org/2000/svg";
const SAMPLES = 360;

function plot(counts, most, label) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${SAMPLES} 60`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", "plot");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  const line = document.createElementNS(SVG, "polyline");
  const first = SAMPLES - counts.length;
  const points = counts.map((one, at) => `${first + at},${(58 - (one / most) * 54).toFixed(1)}`);
  line.setAttribute("points", points.join(" "));
  svg.append(line);
  return svg;
}

export function showRefusals(records, known) {
  if (records.length === 0) {
    fill("refusals", [], known ? "Nothing was refused." : "The operator that leads has them, each pod's own page, and metric xmpp_edge_stanzas_refused_total.");
    return;
  }
  const rows = records
    .map(([, one]) => one)
    .sort((one, other) => (one.lastTime < other.lastTime ? 1 : -1))
    .map((one) => [one.reason, foreign(one.partner), one.direction, one.count.toLocaleString("en"), time(one.lastTime), one.remedy ?? ""]);
  fill("refusals", [table("Refused stanzas", ["Reason", "Partner", "Direction", "Stanzas", "Last", "What to do"], rows)], "");
}

function fill(id, parts, nothing) {
  const place = document.getElementById(id);
  place.replaceChildren(...(parts.length > 0 ? parts : [element("p", { class: "quiet" }, nothing)]));
}

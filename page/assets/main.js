// Starts the page: what is shown follows the board, and how it is shown stands in the address, so that a
// view can be handed on.

import { Board } from "./board.js";
import { element, foreign, tellTimes, visible } from "./dom.js";
import { explainForm } from "./explain.js";
import { Partners } from "./partners.js";
import { ProbeForm } from "./probe.js";
import { showGateways, showPools, showRates, showRefusals } from "./pools.js";

const byId = (id) => document.getElementById(id);

function viewOf(hash) {
  const asked = new URLSearchParams(hash.slice(1));
  return {
    filter: asked.get("filter") ?? "",
    state: asked.get("state") ?? "",
    sort: asked.get("sort") ?? "state",
    open: new Set(asked.getAll("open")),
  };
}

function hashOf(view) {
  const asked = new URLSearchParams();
  if (view.filter) asked.set("filter", view.filter);
  if (view.state) asked.set("state", view.state);
  if (view.sort !== "state") asked.set("sort", view.sort);
  for (const key of view.open) asked.append("open", key);
  return asked.size > 0 ? `#${asked}` : "#";
}

function navigate(change) {
  const view = { ...partners.view, ...change };
  history.replaceState(null, "", hashOf(view));
  take(view);
}

function take(view) {
  if (byId("filter").value !== view.filter) byId("filter").value = view.filter;
  byId("state").value = view.state;
  partners.setView(view);
}

const probe = new ProbeForm(() => board.headers());
const partners = new Partners(navigate, (domain, pool) => probe.start(domain, pool));

const board = new Board({
  changed(sections) {
    const head = board.list("head")[0]?.[1];
    byId("token-section").hidden = true;
    if (sections.has("head") && head) showHead(head);
    if (sections.has("pool") || sections.has("partner")) {
      const pools = board.list("pool").map(([key]) => key);
      partners.setRecords(board.list("partner"), pools);
      probe.setPools(pools);
    }
    if (sections.has("pool")) showPools(board.list("pool"));
    if (sections.has("gateway") || sections.has("head")) showGateways(board.list("gateway"));
    if (sections.has("rate") || sections.has("head")) showRates(board.list("rate"));
    if (sections.has("refusal") || sections.has("head")) showRefusals(board.list("refusal"), head?.refusals ?? false);
  },
  live(text, refused) {
    say(text);
    if (refused) {
      byId("token-section").hidden = false;
      byId("token").focus();
    }
  },
});

function say(text) {
  const shown = visible(text);
  if (byId("live").textContent !== shown) byId("live").textContent = shown;
}

function showHead(head) {
  byId("title").textContent = visible(head.title);
  document.title = `${visible(head.title)}: xmpp-edge`;
  say(`${head.ready ? "Ready" : "Not ready"}; live; version ${head.version}`);
  byId("notes-section").hidden = head.notes.length === 0;
  byId("notes").replaceChildren(...head.notes.map((note) => element("li", {}, foreign(note))));
  byId("explain-section").hidden = byId("explain-link").hidden = !head.explains;
  byId("probe-section").hidden = byId("probe-link").hidden = !head.probes;
}

byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = byId("token").value.trim();
  byId("token").value = "";
  // What no header can hold is no token.
  if (/^[\x20-\x7e]+$/.test(token)) board.setToken(token);
  else say("That is no token: paste it decoded from base64");
});
byId("filter-form").addEventListener("submit", (event) => event.preventDefault());
byId("filter").addEventListener("input", () => navigate({ filter: byId("filter").value }));
byId("state").addEventListener("change", () => navigate({ state: byId("state").value }));
addEventListener("hashchange", () => {
  // Headings are jumped to by their ids.
  if (location.hash.includes("=") || location.hash === "") take(viewOf(location.hash));
});
explainForm(() => board.headers());
take(viewOf(location.hash));
setInterval(tellTimes, 5000);
board.start();

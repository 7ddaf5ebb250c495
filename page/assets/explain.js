// The form of `/explain`: the verdict for one chat message and every rule that led to it.

import { element, foreign, table } from "./dom.js";

export function explainForm(headers) {
  const form = document.getElementById("explain-form");
  const shown = document.getElementById("explained");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const asked = new URLSearchParams({
      from: document.getElementById("from").value.trim(),
      to: document.getElementById("to").value.trim(),
    });
    try {
      const answer = await fetch(`explain?${asked}`, { headers: headers(), cache: "no-store" });
      const text = (await answer.text()).trim();
      shown.replaceChildren(...(answer.ok ? verdict(JSON.parse(text)) : [element("p", { class: "bad" }, text)]));
    } catch (error) {
      shown.replaceChildren(element("p", { class: "bad" }, `No answer: ${error.message}`));
    }
  });
}

function verdict(found) {
  let words = "passes";
  if (found.reason) words = `refused: ${found.reason}`;
  else if (found.audited) words = "passes, because the policy is in mode Audit";
  else if (found.dependsOnContact) words = "passes once the user has added the remote address";
  const rules = found.rules.map((rule) => [rule.rule, rule.outcome, rule.object ? foreign(rule.object) : "", foreign(rule.text)]);
  return [
    element("p", {}, [
      foreign(found.from), " to ", foreign(found.to), ` (${found.direction}): `,
      element("strong", { class: found.reason ? "bad" : "good" }, words),
    ]),
    table("Rules that led to it", ["Rule", "Outcome", "Object", "Text"], rules),
  ];
}

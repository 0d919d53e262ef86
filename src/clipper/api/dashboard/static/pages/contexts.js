// The learned state of an application's policy for one user, session or other context.

import { html, useRef, useState } from "../html.js";
import { path } from "../api.js";
import { usePoll } from "../poll.js";
import { counted, number, percent } from "../format.js";
import { Waiting } from "../parts/notices.js";
import { Table } from "../parts/table.js";

const LISTED = 100;

/** @param {{api: import("../api.js").Api, name: string}} given */
export function Contexts({ api, name }) {
  const field = useRef(null);
  const [context, setContext] = useState(null);
  const known = usePoll(() => api.get(path("applications", name, "contexts"), { limit: LISTED }), [api, name], 10_000);
  return html`
    <p>${known.value ? `It learned in ${counted(known.value.count, "context")}.` : known.error?.message}</p>
    <form class="row" onSubmit=${(event) => { event.preventDefault(); setContext(field.current.value); }}>
      <label>Context <input ref=${field} list="contexts" required maxlength="1000" /></label>
      <datalist id="contexts">${(known.value?.contexts ?? []).map((one) => html`<option value=${one} />`)}</datalist>
      <button type="submit">Look it up</button>
    </form>
    ${context !== null && html`<${Learned} api=${api} name=${name} context=${context} />`}
  `;
}

function Learned({ api, name, context }) {
  const learned = usePoll(() => api.get(path("applications", name, "policy"), { context }), [api, name, context]);
  if (!learned.value) return html`<${Waiting} error=${learned.error} />`;
  const columns = [
    { name: "model", cell: (one) => one.model + (one.shadow ? " (shadow)" : "") },
    { name: "chosen now", isNumber: true, cell: (one) => percent(one.share) },
    { name: "mean loss", isNumber: true, cell: (one) => number(one.mean_loss) },
    { name: "in time", isNumber: true, cell: (one) => percent(one.in_time) },
    { name: "asked", isNumber: true, cell: (one) => number(one.pulls) },
    { name: "feedback", isNumber: true, cell: (one) => number(one.scored) },
  ];
  return html`
    <p role="status">In context <strong>${context}</strong>: ${number(learned.value.observations)} pieces of feedback, older ones counted as less.</p>
    ${learned.value.problem && html`<p class="notice bad">${learned.value.problem}</p>`}
    <${Table} title="Models in this context" columns=${columns} rows=${learned.value.models} keyOf=${(one) => one.model} empty="It has no models." />
  `;
}

// Changes how an application with the policy weighted splits its queries.

import { html, useState } from "../html.js";
import { path } from "../api.js";
import { percent } from "../format.js";
import { Action } from "../parts/confirm.js";

/** @param {{api: import("../api.js").Api, application: any, onDone: () => void}} given */
export function Weights({ api, application, onDone }) {
  const [changed, setChanged] = useState({});
  const now = weightsOf(application);
  const weights = { ...now, ...changed };
  const isWrong = Object.values(weights).some((weight) => !(weight >= 0)) || total(weights) === 0;
  const act = () =>
    api.call("PATCH", path("applications", application.name), {
      body: { policy: { name: "weighted", parameters: { ...application.policy.parameters, weights } } },
    });
  const done = () => { setChanged({}); onDone(); };
  return html`<${Action} name="Change the weights" act=${act} onDone=${done} isDisabled=${isWrong}>
    ${Object.entries(weights).map(([model, weight]) => html`<p key=${model}>
      <label>Weight of ${model} <input type="number" min="0" step="any" required value=${weight}
        onInput=${(event) => setChanged({ ...changed, [model]: event.target.valueAsNumber })} /></label>
    </p>`)}
    <p aria-live="polite">${isWrong
      ? "Weights are at least 0, and not all are 0."
      : `${application.name} will ask ${Object.keys(weights).map((model) => `${model} for ${shareText(weights, model)} of its queries (now ${shareText(now, model)})`).join(", ")}. Contexts stay with their model as far as the shares allow. Queries in flight are not affected.`}</p>
  </${Action}>`;
}

/** The weight of each model that can answer; without weights all are equal. */
function weightsOf({ links, policy }) {
  const given = policy.parameters.weights;
  const answering = links.filter((linked) => !linked.shadow);
  const isOneOfMany = (model) => links.filter((linked) => linked.model === model).length > 1;
  const names = answering.map(({ model, version }) => (version && isOneOfMany(model) ? `${model}:${version}` : model));
  return Object.fromEntries(names.map((name) => [name, given ? given[name] ?? 0 : 1]));
}

function total(weights) {
  return Object.values(weights).reduce((sum, weight) => sum + weight, 0);
}

function shareText(weights, model) {
  return percent(total(weights) ? weights[model] / total(weights) : 0);
}

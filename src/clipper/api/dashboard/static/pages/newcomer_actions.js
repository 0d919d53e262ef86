// The versions that are new to an application, and what an admin can do about them.

import { html } from "../html.js";
import { path } from "../api.js";
import { usePoll } from "../poll.js";
import { counted, number, percent } from "../format.js";
import { Action } from "../parts/confirm.js";
import { link } from "../router.js";

/**
 * Buttons that let the newcomers in, and that stop each of them.
 * @param {{api: import("../api.js").Api, application: any, onDone: () => void}} given
 */
export function NewcomerActions({ api, application, onDone }) {
  const ramped = application.newcomers.filter((one) => !one.stopped);
  return html`
    ${ramped.length > 0 && html`<${Promote} api=${api} application=${application} ramped=${ramped} onDone=${onDone} />`}
    ${[...ramped, ...application.watched].map((one) => html`<${Stop} key=${`${one.model}:${one.version}`} api=${api}
      application=${application} newcomer=${one} onDone=${onDone} />`)}
  `;
}

/** What feedback has said of a version that is ramped. @param {any} one */
export function feedbackOn(one) {
  const counts = `${one.feedback} of ${counted(one.enough_feedback, "answer")} with feedback`;
  return one.mean_loss === null ? counts : `${counts}, which lost ${number(one.mean_loss)} on average, the others ${number(one.rest_mean_loss)}`;
}

/** A new version that answers already, and is stopped if it fails more than the one before. */
export function Watched({ version: one }) {
  const of = html`<a href=${link("models", one.model)}>${one.model}:${one.version}</a>`;
  const compared = `${one.failed} of ${one.compared} compared queries to it failed or were late, ${one.rest_failed} of ${one.rest_compared} others`;
  return html`${of} is new and watched: ${one.answers} of ${counted(one.enough_answers, "answer")}${one.compared > 0 && html`; <strong class="bad">${compared}</strong>`}
    ${one.last_error && `; its last error: ${one.last_error}`}`;
}

function Promote({ api, application: { name, ramp }, ramped, onDone }) {
  const change = (share) => api.call("PATCH", path("applications", name), { body: { ramp: share } });
  // Without a ramp the newcomers are let in. The ramp of later ones stays as it is.
  const act = () => change(null).then(() => change(ramp));
  return html`<${Action} name=${`Promote ${namesOf(ramped)}`} act=${act} onDone=${onDone}>
    ${ramped.map((one) => html`<p key=${one.version}>${one.model}:${one.version} gets ${percent(one.share)} of the queries of ${name}: ${feedbackOn(one)}.</p>`)}
    <p>From now on the policy decides ${ramped.length === 1 ? "its share" : "their shares"}, and Clipper no longer stops
      ${ramped.length === 1 ? " it" : " them"} for what its answers lose. Later versions will get ${percent(ramp)} at first, as before.</p>
  </${Action}>`;
}

function Stop({ api, application, newcomer: { model, version, before }, onDone }) {
  const links = application.links.filter((linked) => linked.model === model && !linked.shadow);
  const own = links.find((linked) => linked.version === version) ?? links.find((linked) => linked.version === null);
  if (own === undefined) return null;
  const at = path("applications", application.name, "links", links.length > 1 && own.version ? `${model}:${version}` : model);
  const isCurrent = own.version === null && before !== null;
  const act = () => {
    if (before === null) return api.call("DELETE", at);
    if (isCurrent) return api.call("POST", path("models", model, "rollback"), { body: { version: before } });
    return api.call("PUT", at, { body: { version: before, cost: own.cost } });
  };
  return html`<${Action} name=${`Stop ${model}:${version}`} act=${act} onDone=${onDone}>
    ${before === null
      ? html`<p>${application.name} will not ask ${model}:${version} any more: the link is removed.</p>`
      : html`<p>Version ${before} answers again the queries that version ${version} gets from ${isCurrent ? html`<${Followers} api=${api} model=${model} />` : application.name}.</p>`}
    <p>No query is dropped meanwhile. Version ${version} stays deployed, so it can be tried again.</p>
  </${Action}>`;
}

/** The applications that follow the current version of a model. */
function Followers({ api, model }) {
  const applications = usePoll(() => api.get("applications"), [api, model], null);
  const follow = (applications.value ?? []).filter(({ links }) => links.some((linked) => linked.model === model && linked.version === null));
  return follow.map(({ name }) => name).join(", ") || "all applications that follow the current version";
}

function namesOf(some) {
  return some.map((one) => `${one.model}:${one.version}`).join(", ");
}

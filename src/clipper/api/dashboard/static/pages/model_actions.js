// An admin's actions on a model.

import { html, useState } from "../html.js";
import { path } from "../api.js";
import { counted } from "../format.js";
import { Action } from "../parts/confirm.js";

/** @param {{api: import("../api.js").Api, model: any, users: any[], onDone: () => void}} given users: applications */
export function Rollback({ api, model, users, onDone }) {
  const others = model.versions.filter((version) => !version.current && version.state !== "failed").map((version) => version.version);
  const whyStopped = Object.fromEntries(model.versions.map((version) => [version.version, version.stopped]));
  // None is proposed if none is sound, so that nobody returns to a bad version by two clicks.
  const usual = others.includes(model.previous) ? model.previous : "";
  const [chosen, setChosen] = useState(null);
  if (others.length === 0) return null;
  const version = others.includes(chosen) ? chosen : usual;
  const stopped = whyStopped[version];
  const isPinned = (one) => one.links.every((linked) => linked.model !== model.name || linked.version !== null);
  const follow = users.filter((one) => !isPinned(one)), pinned = users.filter(isPinned);
  const names = (some) => some.map((one) => one.name).join(", ");
  const act = () => api.call("POST", path("models", model.name, "rollback"), { body: stopped ? { version, allow_stopped: true } : { version } });
  return html`<${Action} name="Roll back" act=${act} onDone=${onDone} isDisabled=${!version}>
    <p><label>To version <select value=${version} onChange=${(event) => setChosen(event.target.value)}>
      ${!usual && html`<option value="">choose one</option>`}
      ${others.toReversed().map((one) => html`<option value=${one}>${one}${whyStopped[one] ? ", was stopped" : ""}</option>`)}
    </select></label></p>
    ${stopped && html`<p class="notice bad" role="alert">Version ${version} was stopped: ${stopped}</p>`}
    <p aria-live="polite">${version ? html`Version ${version} becomes current in place of ${model.current ?? "none"}, once its replicas are ready and every worker serves it. No query is dropped meanwhile.` : "No earlier version is sound."}</p>
    <p>${follow.length ? `New queries of ${names(follow)} go to that version.` : "No application follows the current version."}
      ${pinned.length > 0 && ` ${names(pinned)} stay with the version that they pin.`}</p>
  </${Action}>`;
}

/** @param {{api: import("../api.js").Api, version: any, onDone: () => void}} given */
export function Scale({ api, version, onDone }) {
  const { model, scaling } = version;
  const [least, setLeast] = useState(scaling?.min ?? version.replicas_wanted);
  const [most, setMost] = useState(scaling?.max ?? version.replicas_wanted);
  const isWrong = !(least >= 1 && most >= least);
  const replicas = least === most ? least : { min: least, max: most };
  const act = () => api.call("POST", path("models", model, "scale"), { body: { replicas, version: version.version } });
  const field = (name, value, set) => html`<label>${name} <input type="number" min="1" step="1" required value=${value} onInput=${(event) => set(event.target.valueAsNumber)} /></label>`;
  return html`<${Action} name="Scale" act=${act} onDone=${onDone} isDisabled=${isWrong}>
    <p class="row">${field("At least", least, setLeast)} ${field("At most", most, setMost)}</p>
    <p aria-live="polite">${isWrong ? "Expected at least 1 replica, and a minimum that is not over the maximum." : effectOf(version, least, most)}</p>
  </${Action}>`;
}

function effectOf(version, least, most) {
  const of = `version ${version.version} of ${version.model}`;
  const range = `Its load decides how many replicas ${of} has, from ${least} to ${most}.`;
  const now = version.replicas_wanted, change = Math.min(Math.max(now, least), most) - now;
  const processes = (count) => counted(count, "model process", "model processes");
  const moves =
    change > 0 ? `Now ${processes(change)} more will start.`
    : change < 0 ? `Now ${processes(-change)} will stop, once their queries are answered.`
    : "Nothing starts or stops now.";
  return least === most ? `${of[0].toUpperCase()}${of.slice(1)} will have ${counted(least, "replica")}, whatever its load; it has ${now}. ${moves}` : `${range} It has ${now}. ${moves}`;
}

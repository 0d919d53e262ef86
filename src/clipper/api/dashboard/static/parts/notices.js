// Short texts on a state: of the server, a model or a call.

import { html } from "../html.js";

const MOODS = {
  ready: "good", live: "good", starting: "busy", draining: "busy", stopping: "busy", degraded: "bad", backing_off: "bad",
  crash_loop: "bad", lost: "bad", failing: "bad", failed: "bad", stopped: "bad",
};

/** A state as a word; its colour only repeats what the word says. */
export function State({ of }) {
  return html`<span class="state ${MOODS[of] ?? ""}">${of.replaceAll("_", " ")}</span>`;
}

/** @param {string} state */
export function isBad(state) {
  return MOODS[state] === "bad";
}

/**
 * How many of a version's replicas are ready.
 * @param {{of: any}} given a version
 */
export function ReadyReplicas({ of: { condition, replicas, replicas_wanted: wanted } }) {
  const ready = replicas.filter((replica) => replica.state === "ready").length;
  return html`<${Limited} text="${ready} of ${wanted}" isOver=${isBad(condition) && ready < wanted} why="not all are ready" />`;
}

/** A value, marked and named as too high where it is. */
export function Limited({ text, isOver, why }) {
  return isOver ? html`<strong class="bad" title=${why}>${text}<span class="unseen"> (${why})</span></strong>` : text;
}

/** What a page shows until its first answer, or instead of it. */
export function Waiting({ error }) {
  if (error) return html`<p role="alert" class="notice bad">${error.message}</p>`;
  return html`<p class="quiet" role="status">Loading …</p>`;
}

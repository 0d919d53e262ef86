// Which applications break their objective, since when and why. They come first.

import { counted } from "../format.js";
import { ASKED_FOR } from "./recent.js";

// More late answers, errors or defaults than this are a problem: with them the p99 misses the SLO.
export const TOO_MANY = 0.01;

/** @param {any} application with its latest values as recent */
export function isOverSlo({ recent, slo_ms }) {
  return recent.p99_ms > slo_ms;
}

/**
 * The share of defaults that nobody asked for, since a threshold of confidence asks for others.
 * @param {import("./recent.js").Shares} shares
 */
export function failedShareOf({ defaults, asked_defaults: asked }) {
  return Math.max((defaults ?? 0) - (asked ?? 0), 0);
}

/**
 * How many things are wrong, to sort by: a number that changes seldom, so that rows do not move under the pointer.
 * @param {any} application as above, with its shares of the last minute
 */
export function troubleOf(application) {
  const { problem, shares } = application;
  const tooMany = [shares.late, shares.errors, failedShareOf(shares)].map((share) => share > TOO_MANY);
  return [Boolean(problem), isOverSlo(application), ...tooMany].filter(Boolean).length;
}

/**
 * The share of the last minute's queries that was within the SLO; null where nobody asked.
 * @param {import("./recent.js").Shares} shares
 */
export function inTimeOf({ late }) {
  return late === null ? null : 1 - late;
}

/**
 * For how many seconds too many queries have been late or had defaults or errors, by the latest values; 0 if they are
 * not now. A value without queries tells nothing.
 * @param {Record<string, (number | null)[]> | undefined} series
 * @param {number} step_s
 */
export function troubledFor(series, step_s) {
  const { late_share: late = [], default_share: defaults = [], error_share: errors = [] } = series ?? {};
  let steps = 0;
  for (let index = late.length - 1; index >= 0; index -= 1) {
    const worst = Math.max(late[index] ?? -1, defaults[index] ?? -1, errors[index] ?? -1);
    if (worst >= 0 && worst <= TOO_MANY) break;
    if (worst > TOO_MANY) steps = late.length - index;
  }
  return steps * step_s;
}

/**
 * Why queries of the last minute missed the objective, the most frequent reason first; empty if few did.
 * @param {any} application as above, with its last_minute
 */
export function whyTroubled(application) {
  const { problem, last_minute: minute } = application;
  if (troubleOf(application) === 0) return [];
  const failed = {};
  for (const counts of [minute?.errors ?? {}, minute?.defaults ?? {}]) {
    for (const [reason, count] of Object.entries(counts)) {
      if (reason !== ASKED_FOR) failed[reason] = (failed[reason] ?? 0) + count;
    }
  }
  const outputs = Math.max((minute?.late ?? 0) - (failed.timeout ?? 0), 0);
  const reasons = Object.entries(failed).map(([reason, count]) => ({ count, text: `${count} ${reason}${explained(minute, reason)}` }));
  if (outputs > 0) reasons.push({ count: outputs, text: `${counted(outputs, "answer")} came after the SLO` });
  reasons.sort((one, other) => other.count - one.count);
  return [...(problem ? [problem] : []), ...reasons.map(({ text }) => text)];
}

function explained(minute, reason) {
  const text = minute.explanations?.[reason];
  return text ? `: ${text}` : "";
}

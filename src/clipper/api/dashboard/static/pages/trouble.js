// Which applications come first: those that break their objective.

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
 * How many things are wrong, to sort by: a number that changes seldom, so that rows do not move while one aims at them.
 * @param {any} application as above, with its shares of the last minute
 */
export function troubleOf(application) {
  const { problem, shares } = application;
  const tooMany = [shares.late, shares.errors, failedShareOf(shares)].map((share) => share > TOO_MANY);
  return [Boolean(problem), isOverSlo(application), ...tooMany].filter(Boolean).length;
}

// Which applications come first: those that break their objective.

// More late answers or defaults than this are a problem: with them the p99 misses the SLO.
export const TOO_MANY = 0.01;

/** @param {any} application with its latest values as recent */
export function isOverSlo({ recent, slo_ms }) {
  return recent.p99_ms > slo_ms;
}

/**
 * The share of defaults that nobody asked for, since a threshold of confidence asks for others.
 * @param {import("./recent.js").Recent} recent
 */
export function failedShareOf({ default_share: all, asked_default_share: asked }) {
  return Math.max((all ?? 0) - (asked ?? 0), 0);
}

/**
 * How many things are wrong, to sort by: a number that changes seldom, so that rows do not move while one aims at them.
 * @param {any} application as above
 */
export function troubleOf(application) {
  const { recent } = application;
  return [Boolean(application.problem), isOverSlo(application), recent.late_share > TOO_MANY, failedShareOf(recent) > TOO_MANY].filter(Boolean).length;
}

// Which applications come first: those that break their objective.

// More late answers or defaults than this are a problem: with them the p99 misses the SLO.
export const TOO_MANY = 0.01;

/** @param {any} application with its latest values as recent */
export function isOverSlo({ recent, slo_ms }) {
  return recent.p99_ms > slo_ms;
}

/**
 * How many things are wrong, to sort by: a number that changes seldom, so that rows do not move while one aims at them.
 * @param {any} application as above
 */
export function troubleOf(application) {
  const { late_share: late, default_share: defaults } = application.recent;
  return [Boolean(application.problem), isOverSlo(application), late > TOO_MANY, defaults > TOO_MANY].filter(Boolean).length;
}

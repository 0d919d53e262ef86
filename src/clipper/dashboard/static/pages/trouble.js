// Which applications come first: those that break their objective.

// More late answers or defaults than this are a problem: with them the p99 misses the SLO.
export const TOO_MANY = 0.01;

/** @param {any} application with its latest values as recent */
export function isOverSlo({ recent, slo_ms }) {
  return recent.p99_ms > slo_ms;
}

/**
 * How much is wrong, from 0 on, to sort by.
 * @param {any} application as above
 */
export function troubleOf(application) {
  const { late_share: late, default_share: defaults } = application.recent;
  return Number(Boolean(application.problem)) + Number(isOverSlo(application)) + over(late) + over(defaults);
}

function over(share) {
  return share > TOO_MANY ? 1 + share : 0;
}

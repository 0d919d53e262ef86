// An application's last half minute: the server has a value for every two seconds, in which there are few queries.

const VALUES = 15;

/**
 * @typedef {{rate: number | null, p99_ms: number | null, late_share: number | null, default_share: number | null,
 *   asked_default_share: number | null}} Recent asked_default_share: the defaults that the application's threshold of confidence asks for
 * @param {Record<string, (number | null)[]> | undefined} series the latest value last
 * @returns {Recent} the mean rate, the median p99, and the shares of all queries
 */
export function recentOf(series) {
  const last = (name) => (series?.[name] ?? []).slice(-VALUES);
  const rates = last("rate");
  return {
    rate: mean(rates.filter(isKnown)),
    p99_ms: median(last("p99_ms").filter(isKnown)),
    late_share: shareOf(last("late_share"), rates),
    default_share: shareOf(last("default_share"), rates),
    asked_default_share: shareOf(last("default_share.low_confidence"), rates),
  };
}

/**
 * Each value as the mean of those of the half minute before it, without those that are not there.
 * @param {(number | null)[]} values
 */
export function smoothed(values) {
  return values.map((value, index) => (value === null ? null : mean(values.slice(Math.max(0, index - VALUES + 1), index + 1).filter(isKnown))));
}

function isKnown(value) {
  return value !== null && value !== undefined;
}

function mean(values) {
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
}

function median(values) {
  return values.length ? values.toSorted((one, other) => one - other)[Math.floor(values.length / 2)] : null;
}

/** Shares of intervals, as the share of all their queries. */
function shareOf(shares, rates) {
  let some = 0, all = 0;
  shares.forEach((share, index) => {
    if (!isKnown(share) || !isKnown(rates[index])) return;
    some += share * rates[index];
    all += rates[index];
  });
  return all > 0 ? some / all : null;
}

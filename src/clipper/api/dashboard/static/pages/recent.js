// An application's last minute: the server has a value for every two seconds, in which there are few queries.

const VALUES = 30;
const SMOOTHED_VALUES = 15;
// An application asks for the default below its threshold of confidence.
export const ASKED_FOR = "low_confidence";

/**
 * @typedef {{rate: number | null, p99_ms: number | null}} Recent
 * @param {Record<string, (number | null)[]> | undefined} series the latest value last
 * @returns {Recent} the mean rate and the median p99
 */
export function recentOf(series) {
  const last = (name) => (series?.[name] ?? []).slice(-VALUES).filter(isKnown);
  return { rate: mean(last("rate")), p99_ms: median(last("p99_ms")) };
}

/**
 * Which models answered in the last minute, the largest share first.
 * @param {any} lastMinute of an application, as the API counts it
 * @returns {{model: string, share: number}[]}
 */
export function answersOf(lastMinute) {
  const { queries, answered } = lastMinute ?? { queries: 0, answered: {} };
  const shares = Object.entries(answered).map(([model, count]) => ({ model, share: count / Math.max(queries, count) }));
  return shares.sort((one, other) => other.share - one.share);
}

/**
 * @typedef {{late: number | null, errors: number | null, defaults: number | null, asked_defaults: number | null}} Shares
 *   of the queries; asked_defaults are the defaults that the application's threshold of confidence asks for
 * @param {any} lastMinute of an application, as the API counts it
 * @returns {Shares} null where nobody asked
 */
export function sharesOf(lastMinute) {
  const { queries, late, errors, defaults } = lastMinute ?? { queries: 0, late: 0, errors: {}, defaults: {} };
  const total = (counts) => Object.values(counts).reduce((sum, count) => sum + count, 0);
  // The answers of a minute may be to earlier queries.
  const share = (count) => (Math.max(queries, count) > 0 ? count / Math.max(queries, count) : null);
  return { late: share(late), errors: share(total(errors)), defaults: share(total(defaults)), asked_defaults: share(defaults[ASKED_FOR] ?? 0) };
}

/**
 * Each value as the mean of the half minute before it; missing values do not count.
 * @param {(number | null)[]} values
 */
export function smoothed(values) {
  return values.map((value, index) => (value === null ? null : mean(values.slice(Math.max(0, index - SMOOTHED_VALUES + 1), index + 1).filter(isKnown))));
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

// Numbers and times as people read them.

/** @param {number | null | undefined} value */
export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value !== 0 && Math.abs(value) < 0.001) return value.toExponential(1);
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : Math.abs(value) >= 1 ? 2 : 3;
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

/** @param {number | null | undefined} value */
export function milliseconds(value) {
  return value === null || value === undefined ? "–" : `${number(value)} ms`;
}

/** @param {number | null | undefined} bytes */
export function megabytes(bytes) {
  return bytes === null || bytes === undefined ? "–" : `${number(bytes / 2 ** 20)} MiB`;
}

/** @param {number | null | undefined} share from 0 to 1 */
export function percent(share) {
  if (share === null || share === undefined) return "–";
  if (share === 0) return "0 %";
  return share < 0.001 ? "< 0.1 %" : `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
}

/** @param {number} seconds since 1970 */
export function clock(seconds) {
  return new Date(1000 * seconds).toLocaleTimeString("en-GB");
}

/** @param {number} seconds since 1970 */
export function day(seconds) {
  return `${new Date(1000 * seconds).toLocaleDateString("en-CA")} ${clock(seconds)}`;
}

/** @param {number} seconds */
export function duration(seconds) {
  const [size, unit] = seconds < 120 ? [1, "s"] : seconds < 7200 ? [60, "min"] : seconds < 172800 ? [3600, "h"] : [86400, "d"];
  return `${Math.floor(seconds / size)} ${unit}`;
}

/**
 * @param {number} count
 * @param {string} one the noun for one
 * @param {string} [many]
 */
export function counted(count, one, many = `${one}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}

/**
 * The last number of a series that is there.
 * @param {(number | null)[] | undefined} values
 */
export function latest(values) {
  return values?.findLast((value) => value !== null && value !== undefined) ?? null;
}

// Reads the server's metrics, in Prometheus's format, for values that no other call of the API has.

const SAMPLE = /^([a-zA-Z_:][\w:]*)\{(.*)\} (\S+)$/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/**
 * @typedef {{name: string, labels: Record<string, string>, value: number}} Sample
 * @param {string} text
 * @param {string} application
 * @returns {Sample[]} those of an application
 */
export function samplesOf(text, application) {
  const found = [];
  for (const line of text.split("\n")) {
    // Most lines are of something else.
    if (!line.includes('application="')) continue;
    const parts = SAMPLE.exec(line);
    if (parts === null) continue;
    const labels = Object.fromEntries([...parts[2].matchAll(LABEL)].map(([, name, value]) => [name, unescaped(value)]));
    if (labels.application === application) found.push({ name: parts[1], labels, value: Number(parts[3].replace("Inf", "Infinity")) });
  }
  return found;
}

function unescaped(text) {
  return text.replace(/\\(.)/g, (_, letter) => (letter === "n" ? "\n" : letter));
}

/**
 * A metric's sum over the workers.
 * @param {Sample[]} samples
 * @param {string} name
 * @returns {number | null} null if no worker has it
 */
export function total(samples, name) {
  const values = samples.filter((sample) => sample.name === name && !Number.isNaN(sample.value));
  return values.length ? values.reduce((sum, sample) => sum + sample.value, 0) : null;
}

/**
 * A histogram, summed over the workers.
 * @param {Sample[]} samples
 * @param {string} name
 * @returns {{upTo: number, count: number}[]} how many values are in each bin, by the bin's upper bound
 */
export function histogram(samples, name) {
  const sums = new Map();
  for (const { name: given, labels, value } of samples) {
    if (given !== `${name}_bucket`) continue;
    const bound = Number(labels.le.replace("+Inf", "Infinity"));
    sums.set(bound, (sums.get(bound) ?? 0) + value);
  }
  let before = 0;
  return [...sums].sort(([one], [other]) => one - other).map(([upTo, sum]) => {
    const count = sum - before;
    before = sum;
    return { upTo, count };
  });
}

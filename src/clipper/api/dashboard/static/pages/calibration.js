// How often answers are right, by their confidence: a diagram of reliability, and the same numbers as a table.

import { html } from "../html.js";
import { path } from "../api.js";
import { usePoll } from "../poll.js";
import { counted, number, percent } from "../format.js";
import { Waiting } from "../parts/notices.js";
import { Table } from "../parts/table.js";

// The learned bins are read from the store.
const EVERY_MS = 10_000;
// Bins with fewer answers, which fading or inheriting left, say nothing. As clipper app calibration has it.
const LEAST_ANSWERS = 0.5;
const SIZE = 260, EDGE = 36;
const TICKS = [0, 0.5, 1];

/**
 * @typedef {{answers: number, confidence: number, right: number, calibrated: number | null}} Bin
 * @typedef {{model: string | null, basis: string, raw: Bin[], answered: Bin[], raw_error: number, answered_error: number}} Reliability
 * @param {{api: import("../api.js").Api, application: any}} given
 */
export function Calibration({ api, application }) {
  const { name, calibrate } = application;
  const policy = usePoll(() => api.get(path("applications", name, "policy")), [api, name], EVERY_MS);
  if (!policy.value) return html`<${Waiting} error=${policy.error} />`;
  if (policy.value.calibration.length === 0)
    return html`<p class="quiet">${
      calibrate
        ? "There is no feedback yet on answers with a confidence."
        : html`How often answers are right by their confidence is learned after <code>clipper app update ${name} --calibrate</code>.`
    }</p>`;
  return policy.value.calibration.map((one) => html`<${Reliable} key=${nameOf(one)} reliability=${one} />`);
}

function Reliable({ reliability }) {
  const known = enough(reliability.raw);
  const columns = [
    { name: "raw confidence", isNumber: true, cell: (bin) => number(bin.confidence) },
    { name: "answers", isNumber: true, cell: (bin) => Math.round(bin.answers).toLocaleString("en") },
    { name: "right", isNumber: true, cell: (bin) => percent(bin.right) },
    { name: "answered now", isNumber: true, cell: (bin) => number(bin.calibrated) },
  ];
  return html`<div>
    <h3>Calibration of ${nameOf(reliability)}</h3>
    <p>${summaryOf(reliability)}</p>
    <${Diagram} reliability=${reliability} />
    <p class="quiet"><span class="answered">As answered</span>, <span class="raw">raw</span>. On the dashed line an answer of confidence 0.9 is right nine times in ten; below it, less often.</p>
    <details>
      <summary>The same as a table</summary>
      <${Table} title="Calibration of ${nameOf(reliability)}" columns=${columns} rows=${known} keyOf=${(bin) => String(bin.confidence)} empty="" />
    </details>
  </div>`;
}

function Diagram({ reliability }) {
  const x = (value) => EDGE + value * (SIZE - EDGE - 8);
  const y = (value) => SIZE - EDGE - value * (SIZE - EDGE - 8);
  return html`<svg class="reliability" viewBox="0 0 ${SIZE} ${SIZE}" width=${SIZE} height=${SIZE} role="img" aria-label=${summaryOf(reliability)}>
    ${TICKS.map((tick) => html`
      <path class="grid" d="M${x(tick)} ${y(0)}V${y(1)}M${x(0)} ${y(tick)}H${x(1)}" />
      <text x=${x(tick)} y=${y(0) + 14} text-anchor="middle">${tick}</text>
      <text x=${x(0) - 5} y=${y(tick) + 4} text-anchor="end">${tick}</text>
    `)}
    <text x=${x(0.5)} y=${SIZE - 4} text-anchor="middle">confidence</text>
    <text x="12" y=${y(0.75)} text-anchor="middle" transform="rotate(-90 12 ${y(0.75)})">right</text>
    <path class="ideal" d="M${x(0)} ${y(0)}L${x(1)} ${y(1)}" />
    ${["raw", "answered"].map((kind) => {
      const points = pointsOf(reliability[kind], x, y);
      return html`<g class=${kind}>
        <path d=${points.map(([across, up], index) => `${index ? "L" : "M"}${across} ${up}`).join("")} />
        ${points.map(([across, up]) => html`<circle cx=${across} cy=${up} r="3" />`)}
      </g>`;
    })}
  </svg>`;
}

/**
 * @param {Bin[]} bins
 * @param {(value: number) => number} x
 * @param {(value: number) => number} y
 */
function pointsOf(bins, x, y) {
  return enough(bins).map((bin) => [x(bin.confidence).toFixed(1), y(bin.right).toFixed(1)]);
}

/** @param {Bin[]} bins */
function enough(bins) {
  return bins.filter((bin) => bin.answers >= LEAST_ANSWERS);
}

/** @param {Reliability} reliability */
function nameOf({ model, basis }) {
  return `${model ?? "several models"}, ${basis}`;
}

/** @param {Reliability} reliability */
export function summaryOf({ raw, raw_error: before, answered_error: now }) {
  const answers = Math.round(raw.reduce((sum, bin) => sum + bin.answers, 0));
  return `Expected calibration error ${number(now)} as answered, ${number(before)} raw, by ${counted(answers, "answer")} with feedback that still count.`;
}

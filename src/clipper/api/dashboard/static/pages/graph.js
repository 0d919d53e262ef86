// The steps of a pipeline as a graph: what goes from one to the next, how fast, and what is lost on the way.

import { html } from "../html.js";
import { usePoll } from "../poll.js";
import { milliseconds, number, percent } from "../format.js";
import { Table } from "../parts/table.js";
import { link } from "../router.js";

const WIDTH = 150, HEIGHT = 92, GAP = 70, ROW = 24;
const CONDITION = /^\s*(.+?)\s*(?:<=|>=|==|!=|<|>)/s;

/** @param {{api: any, application: any, report: any}} given */
export function Graph({ api, application, report }) {
  const all = usePoll(() => api.get("applications"), [api]);
  const recent = new Map((all.value ?? []).map((one) => [one.name, one.last_minute]));
  const rows = rowsOf(report.steps, recent);
  const columns = [
    { name: "step", cell: (row) => html`<a href=${link("applications", row.application)}>${row.step}</a>` },
    { name: "queries/s", isNumber: true, cell: (row) => number(row.rate) },
    { name: "mean time", isNumber: true, cell: (row) => milliseconds(row.mean_ms) },
    { name: "p99", isNumber: true, cell: (row) => milliseconds(row.p99_ms) },
    { name: "waiting", isNumber: true, cell: (row) => row.waiting.toLocaleString("en") },
    { name: "without an answer", isNumber: true, cell: (row) => percent(row.lost) },
    { name: "share of the time", isNumber: true, cell: (row) => percent(row.share) },
    { name: "models", cell: (row) => row.models },
  ];
  return html`<section><h2>Steps</h2>
    <${Drawing} needs=${needsOf(application.steps)} output=${answeredBy(application)} rows=${rows} />
    <${Table} title="Steps" columns=${columns} rows=${rows} keyOf=${(row) => row.step} empty="" />
    <p class="quiet">Rates and queries without an answer are of the last minute, times since the workers started. What waits is now in the queues of a step's models.</p>
  </section>`;
}

/**
 * The facts to show about each step.
 * @param {any[]} steps of a report
 * @param {Map<string, any>} recent the last minute of each application
 */
export function rowsOf(steps, recent) {
  const takenOf = (step) => step.queries * (step.latency?.mean_ms ?? 0);
  const taken = steps.reduce((sum, step) => sum + takenOf(step), 0);
  const sumOf = (counts) => Object.values(counts ?? {}).reduce((sum, count) => sum + count, 0);
  return steps.map((step) => {
    const minute = recent.get(step.application);
    const lost = minute ? sumOf(minute.errors) + sumOf(minute.defaults) : 0;
    return {
      step: step.step, application: step.application,
      rate: minute ? minute.queries / 60 : null,
      lost: minute?.queries ? lost / minute.queries : null,
      mean_ms: step.latency?.mean_ms, p99_ms: step.latency?.p99_ms,
      waiting: step.models.reduce((sum, model) => sum + model.waiting, 0),
      share: taken ? takenOf(step) / taken : null,
      models: step.models.map(({ model, version }) => `${model}:${version}`).join(", "),
    };
  });
}

/**
 * The steps whose outputs each step needs.
 * @param {Record<string, {input: any, when?: string | null, for_each?: string | null}>} steps
 */
export function needsOf(steps) {
  const names = Object.keys(steps);
  return Object.fromEntries(Object.entries(steps).map(([name, step]) => {
    const texts = [...textsOf(step.input), step.for_each ?? "", CONDITION.exec(step.when ?? "")?.[1] ?? ""];
    return [name, names.filter((other) => other !== name && texts.some((text) => sourcesOf(text).includes(other)))];
  }));
}

/** The steps that the answer is made of. */
export function answeredBy({ steps, output }) {
  const names = Object.keys(steps), texts = textsOf(output ?? names.at(-1));
  return names.filter((name) => texts.some((text) => sourcesOf(text).includes(name)));
}

/**
 * How many steps come before each on the longest path.
 * @param {Record<string, string[]>} needs
 */
export function depthsOf(needs) {
  const found = {};
  const depthOf = (name) => (found[name] ??= Math.max(-1, ...needs[name].map(depthOf)) + 1);
  Object.keys(needs).forEach(depthOf);
  return found;
}

function textsOf(wiring) {
  return typeof wiring === "string" ? [wiring] : Object.values(wiring ?? {});
}

function sourcesOf(text) {
  return text.split(/\s+or\s+/).map((part) => part.trim().split(".")[0]);
}

function Drawing({ needs, output, rows }) {
  const depths = depthsOf(needs), of = Object.fromEntries(rows.map((row) => [row.step, row]));
  const layers = [];
  for (const [name, depth] of Object.entries(depths)) (layers[depth] ??= []).push(name);
  const most = Math.max(1, ...layers.map((names) => names.length));
  const height = most * (HEIGHT + ROW), width = 90 + layers.length * (WIDTH + GAP) + 90;
  const places = {};
  layers.forEach((names, depth) => names.forEach((name, row) => {
    places[name] = { x: 90 + depth * (WIDTH + GAP), y: ((row + 0.5) * height) / names.length - HEIGHT / 2 };
  }));
  const ends = { query: [60, height / 2], answer: [width - 80, height / 2] };
  const most_per_s = Math.max(1e-9, ...rows.map((row) => row.rate ?? 0));
  const edge = (from, to, x1, y1, x2, y2, rate) => html`<path key=${`${from}>${to}`} d=${`M${x1} ${y1}C${x1 + 35} ${y1} ${x2 - 35} ${y2} ${x2} ${y2}`}
    fill="none" stroke="var(--edge)" stroke-width=${1 + (4 * (rate ?? 0)) / most_per_s} />`;
  const edges = Object.entries(needs).flatMap(([name, before]) => {
    const { x, y } = places[name], middle = y + HEIGHT / 2, rate = of[name]?.rate;
    if (before.length === 0) return [edge("query", name, ...ends.query, x, middle, rate)];
    return before.map((other) => edge(other, name, places[other].x + WIDTH, places[other].y + HEIGHT / 2, x, middle, rate));
  });
  edges.push(...output.map((name) => edge(name, "answer", places[name].x + WIDTH, places[name].y + HEIGHT / 2, ...ends.answer, of[name]?.rate)));
  const boxes = Object.entries(places).map(([name, { x, y }]) => {
    const row = of[name];
    const lines = row
      ? [`${number(row.rate)}/s, ${milliseconds(row.mean_ms)}`, `${row.waiting} waiting`, `${percent(row.lost)} lost`, `${percent(row.share)} of the time`]
      : ["not asked yet"];
    return html`<g key=${name}>
      <rect x=${x} y=${y} width=${WIDTH} height=${HEIGHT} rx="6" fill="var(--raised)" stroke=${row?.lost > 0.01 ? "var(--bad)" : "var(--edge)"} />
      <text x=${x + 8} y=${y + 18} font-weight="600" fill="var(--text)">${name.length > 17 ? `${name.slice(0, 16)}…` : name}</text>
      ${lines.map((text, at) => html`<text x=${x + 8} y=${y + 36 + 16 * at} font-size="12" fill="var(--text)">${text}</text>`)}
    </g>`;
  });
  return html`<div class="wide" tabindex="0" role="group" aria-label="Graph of the steps">
    <svg role="img" aria-label=${`Steps: ${Object.keys(places).join(", ")}`} width=${width} height=${height} viewBox=${`0 0 ${width} ${height}`} font-size="13">
      ${edges}${boxes}
      <text x="14" y=${height / 2 + 4} fill="var(--text)">query</text>
      <text x=${width - 74} y=${height / 2 + 4} fill="var(--text)">answer</text>
    </svg>
  </div>`;
}

// Charts of what the server recorded of an application or a model, with events as marks.

import { html, useMemo, useState } from "../html.js";
import { Events } from "../events.js";
import { usePoll } from "../poll.js";
import { path } from "../api.js";
import { clock } from "../format.js";
import { Chart, EmptyChart } from "../parts/chart.js";
import { Waiting } from "../parts/notices.js";

const SPANS = [[300, "5 minutes"], [900, "15 minutes"], [3600, "1 hour"]];
const MARKED = 200;
const EVENTS_EVERY_MS = 5_000;

/**
 * @typedef {{title: string, unit: string, lines: (of: Recorded) => import("../parts/chart.js").Line[], nothing: string}} Drawn
 *   a chart, and what it says of a time in which none of its lines has a value
 * @typedef {{length: number, one: (key: string, name: string) => import("../parts/chart.js").Line[],
 *   each: (prefix: string) => import("../parts/chart.js").Line[]}} Recorded the series, as lines to choose from
 * @param {object} given
 * @param {import("../api.js").Api} given.api
 * @param {"applications" | "models"} given.kind
 * @param {string} given.name
 * @param {Drawn[]} given.charts
 * @param {(event: any) => boolean} given.concerns which events are marked
 */
export function Series({ api, kind, name, charts, concerns }) {
  const [seconds, setSeconds] = useState(SPANS[0][0]);
  // A longer span has more values, of which each matters less.
  const everyMs = Math.max(2000, 4 * seconds);
  const series = usePoll(() => api.get(path("series", kind, name), { seconds }), [api, name, seconds], everyMs);
  const log = useMemo(() => new Events(api, MARKED), [api]);
  const events = usePoll(() => log.read(), [log], EVENTS_EVERY_MS);
  if (!series.value) return html`<${Waiting} error=${series.error} />`;
  const { step_s: stepS, end_s: endS, left_out: isLeftOut } = series.value;
  const recorded = linesOf(series.value.series);
  const marks = (events.value ?? []).filter(concerns).map((event) => ({ timeS: event.time_s, text: event.message }));
  const seen = marks.filter((mark) => mark.timeS >= endS - seconds);
  return html`
    <p class="choice">
      <label>Show the last <select onChange=${(event) => setSeconds(Number(event.target.value))}>
        ${SPANS.map(([value, text]) => html`<option value=${value} selected=${value === seconds}>${text}</option>`)}
      </select></label>
    </p>
    ${isLeftOut && html`<p class="notice busy">Not all series of ${name} are recorded: the server has too many applications and models.</p>`}
    <div class="charts">
      ${charts.map(({ title, unit, lines, nothing }) => {
        const found = lines(recorded);
        const key = `${title} ${seconds}`;
        // A target or a bound alone says nothing of what happened.
        return found.some((line) => !line.isDashed && hasValues(line.values))
          ? html`<${Chart} key=${key} title=${title} unit=${unit} lines=${found} endS=${endS} stepS=${stepS} marks=${marks} />`
          : html`<${EmptyChart} key=${key} title=${title} unit=${unit} why=${whyEmpty(series.value, nothing)} />`;
      })}
    </div>
    ${seen.length > 0 &&
    html`<details>
      <summary>Marks in the charts: ${seen.length}</summary>
      <ul>${seen.map((mark) => html`<li>${clock(mark.timeS)} ${mark.text}</li>`)}</ul>
    </details>`}
  `;
}

/** Why a chart of these series is empty: without recorded values, it must not say that nothing happened. */
export function whyEmpty({ series, left_out: isLeftOut }, nothing) {
  if (hasValues(series.rate)) return nothing;
  return isLeftOut
    ? "This is not recorded: the server has too many applications and models."
    : "There are no values of this time: the server had just started, or a query worker did not answer it.";
}

/** @param {(number | null)[] | undefined} values */
function hasValues(values) {
  return values?.some((value) => value !== null) ?? false;
}

/** @returns {Recorded} */
function linesOf(series) {
  const keys = Object.keys(series).sort();
  return {
    length: Math.max(0, ...keys.map((key) => series[key].length)),
    one: (key, name) => (series[key] ? [{ name, values: series[key] }] : []),
    each: (prefix) =>
      keys.filter((key) => key.startsWith(prefix)).map((key) => ({ name: key.slice(prefix.length), values: series[key] })),
  };
}

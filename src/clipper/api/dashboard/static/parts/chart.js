// Charts over time, by uPlot.

import { html, useEffect, useRef } from "../html.js";
import uPlot from "../vendor/uplot.js";
import { latest, number } from "../format.js";

const HEIGHT = 200;
// As many as style.css has.
const COLOURS = ["--line-1", "--line-2", "--line-3", "--line-4", "--line-5", "--line-6", "--line-7", "--line-8"];
const DARK = matchMedia("(prefers-color-scheme: dark)");

/**
 * @typedef {{name: string, values: (number | null)[], isDashed?: boolean}} Line
 * @typedef {{timeS: number, text: string}} Mark an event, drawn as a line upwards
 * @param {object} given
 * @param {string} given.title
 * @param {string} given.unit
 * @param {Line[]} given.lines all of one length, the latest value last; a dashed one is a bound or a target
 * @param {number} given.endS when the latest values are from, in seconds since 1970
 * @param {number} given.stepS between two values
 * @param {Mark[]} [given.marks]
 */
export function Chart({ title, unit, lines, endS, stepS, marks = [] }) {
  const place = useRef(null), plot = useRef(null), seen = useRef(marks);
  seen.current = marks;
  const names = lines.map((line) => line.name).join("\n");
  const data = [times(lines[0]?.values.length ?? 0, endS, stepS), ...lines.map((line) => line.values)];
  useEffect(() => {
    const build = () => {
      plot.current?.destroy();
      plot.current = new uPlot(options(place.current, lines, seen), data, place.current);
    };
    const fit = new ResizeObserver(([{ target }]) => plot.current?.setSize({ width: target.clientWidth, height: HEIGHT }));
    build();
    fit.observe(place.current);
    // uPlot draws on a canvas, which does not follow the page's styles.
    DARK.addEventListener("change", build);
    return () => {
      DARK.removeEventListener("change", build);
      fit.disconnect();
      plot.current.destroy();
      plot.current = null;
    };
  }, [names]);
  useEffect(() => {
    plot.current.setData(data);
    showLatest(plot.current);
  }, [endS, marks.length]);
  return html`<figure class="chart">
    <figcaption>${title}${unit && `, ${unit}`}</figcaption>
    <div ref=${place} role="img" aria-label="${title}: ${summary(lines, unit)}"></div>
  </figure>`;
}

/**
 * A chart without a value, which says why.
 * @param {{title: string, unit: string, why: string}} given
 */
export function EmptyChart({ title, unit, why }) {
  return html`<figure class="chart">
    <figcaption>${title}${unit && `, ${unit}`}</figcaption>
    <p class="empty quiet">${why}</p>
  </figure>`;
}

/** What the chart says, in words. */
function summary(lines, unit) {
  const texts = lines.map((line) => {
    const known = line.values.filter((value) => value !== null);
    if (known.length === 0) return `${line.name} has no values`;
    return `${line.name} is ${number(latest(line.values))} ${unit}, at most ${number(Math.max(...known))}`;
  });
  return texts.length ? texts.join("; ") : "nothing to draw";
}

function times(count, endS, stepS) {
  return Array.from({ length: count }, (_, index) => endS - (count - 1 - index) * stepS);
}

function options(place, lines, marks) {
  const style = getComputedStyle(place);
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = { stroke: colour("--text"), grid: { stroke: colour("--grid"), width: 1 }, ticks: { stroke: colour("--grid"), width: 1 } };
  return {
    width: place.clientWidth || 300,
    height: HEIGHT,
    cursor: { drag: { x: false, y: false } },
    scales: { y: { range: (_, low, high) => [Math.min(0, low ?? 0), (high ?? 0) > 0 ? high * 1.05 : 1] } },
    axes: [
      { ...axis, values: "{HH}:{mm}:{ss}", space: 70 },
      { ...axis, size: 56, values: (_, ticks) => ticks.map(number) },
    ],
    series: [
      { label: "time", value: "{HH}:{mm}:{ss}" },
      ...lines.map((line, index) => ({
        label: line.name,
        stroke: colour(line.isDashed ? "--text" : COLOURS[index % COLOURS.length]),
        width: 1.5,
        dash: line.isDashed ? [6, 4] : undefined,
        value: (_, value) => number(value),
        spanGaps: false,
      })),
    ],
    hooks: { draw: [(drawn) => drawMarks(drawn, marks.current, colour("--mark"))], setCursor: [showLatest] },
  };
}

/** Have the legend show the latest values while nobody points at others. */
function showLatest(plot) {
  if (plot.cursor.idx === null || plot.cursor.idx === undefined) plot.setLegend({ idx: plot.data[0].length - 1 });
}

function drawMarks(plot, marks, colour) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.strokeStyle = colour;
  ctx.setLineDash([2, 3]);
  for (const mark of marks) {
    if (mark.timeS < plot.scales.x.min || mark.timeS > plot.scales.x.max) continue;
    const x = Math.round(plot.valToPos(mark.timeS, "x", true));
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
  }
  ctx.restore();
}

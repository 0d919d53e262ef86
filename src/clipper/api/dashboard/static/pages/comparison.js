// Which of an application's models is better, and how sure that is.

import { html } from "../html.js";
import { counted, duration, milliseconds, number, percent } from "../format.js";
import { Table } from "../parts/table.js";
import { link } from "../router.js";

/** @param {{report: any}} given */
export function Comparison({ report }) {
  const [all] = report.groups;
  const columns = [
    { name: "model", cell: (one) => html`<a href=${link("models", one.model.split(":")[0])}>${one.model}</a>${one.is_shadow ? " (shadow)" : ""}${one.is_linked ? "" : " (not linked)"}` },
    { name: "version", cell: (one) => one.version ?? "none" },
    { name: "chosen now", isNumber: true, cell: (one) => (one.is_shadow ? "–" : percent(one.share)) },
    { name: "mean loss", isNumber: true, cell: (one) => number(one.mean_loss) },
    { name: "surely between", isNumber: true, cell: ({ interval, scored }) => (scored ? `${number(interval.low)} and ${number(interval.high)}` : "–") },
    { name: "feedback", isNumber: true, cell: (one) => Math.round(one.scored).toLocaleString("en") },
    { name: "asked", isNumber: true, cell: (one) => one.asked.toLocaleString("en") },
    { name: "answered", isNumber: true, cell: (one) => (one.is_shadow || !report.queries ? "–" : percent((one.asked - one.missing) / report.queries)) },
    { name: "not in time", isNumber: true, cell: (one) => (one.asked ? percent(one.missing / one.asked) : "–") },
    { name: "p99 of a batch", isNumber: true, cell: (one) => milliseconds(one.latency?.p99_ms) },
  ];
  return html`
    ${all.problem && html`<p class="notice busy">${all.problem}</p>`}
    <p>${verdictOf(all, report)}</p>
    ${all.basis && html`<p class="quiet">Models are ${all.basis}.</p>`}
    <${Table} title="Models" columns=${columns} rows=${all.models} keyOf=${(one) => `${one.model} ${one.version}`} empty="It has no models." />
    <p class="quiet">“Chosen now” is the share of the next queries without a context that the policy gives a model; a context may have learned another one.
      “Answered” is the share of the queries since the workers started that had an output of the model.</p>
  `;
}

function verdictOf(group, report) {
  const sureness = `${(100 * report.confidence).toFixed(0)} %`;
  const more = group.more_feedback === null ? "" : ` About ${counted(Math.ceil(group.more_feedback), "more piece", "more pieces")} of feedback are needed${group.more_s === null ? "" : `, in ${duration(group.more_s)}`}.`;
  return {
    best: `${group.best} is the best model, with ${sureness} confidence.`,
    as_good: `No model is better than ${group.best} by more than ${report.tolerance}, with ${sureness} confidence.`,
    open: `It is not known yet which model is the best.${more}`,
    alone: "There is nothing to compare: it has one model.",
    no_feedback: "There is no feedback yet to compare models by.",
  }[group.verdict];
}

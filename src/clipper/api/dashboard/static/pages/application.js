// One application: how it answers, what its models are worth, and what it learned.

import { html } from "../html.js";
import { path } from "../api.js";
import { usePoll } from "../poll.js";
import { counted, day, milliseconds, number, percent } from "../format.js";
import { isBad, ReadyReplicas, State, Waiting } from "../parts/notices.js";
import { Table } from "../parts/table.js";
import { link } from "../router.js";
import { Comparison } from "./comparison.js";
import { Confidence } from "./confidence.js";
import { Contexts } from "./contexts.js";
import { Graph } from "./graph.js";
import { NewcomerActions, Watched } from "./newcomer_actions.js";
import { smoothed } from "./recent.js";
import { Series } from "./series.js";
import { Weights } from "./weights.js";

// A report reads the selection store.
const REPORT_EVERY_MS = 5_000;
const SHARE = "share, mean over 30 s";
const NO_QUERY = "No query was answered in this time.";

/** @param {import("../main.js").Seen} seen */
export function Application({ api, mayAct, route }) {
  const name = route.parts[1];
  const application = usePoll(() => api.get(path("applications", name)), [api, name]);
  const report = usePoll(() => api.get(path("applications", name, "report")), [api, name], REPORT_EVERY_MS);
  const one = application.value;
  if (!one) return html`<${Waiting} error=${application.error} />`;
  const linked = one.links.map(({ model }) => model);
  const isPipeline = Object.keys(one.steps ?? {}).length > 0;
  const subjects = ["server", `application ${name}`, ...linked.map((model) => `model ${model}`)];
  return html`
    ${one.problem && html`<p role="alert" class="notice bad">${one.problem}</p>`}
    <${Facts} application=${one} />
    ${linked.length > 0 && html`<${Links} key=${linked.join("\n")} api=${api} links=${one.links} names=${linked} />`}
    <${LastMinute} recent=${one.last_minute} />
    ${isPipeline && report.value?.steps && html`<${Graph} api=${api} application=${one} report=${report.value} />`}
    <p class="buttons">
      <a class="button" href=${link("applications", name, "try")}>Try it</a>
      ${mayAct && html`<${NewcomerActions} api=${api} application=${one} onDone=${application.again} />`}
      ${mayAct && one.policy.name === "weighted" && html`<${Weights} api=${api} application=${one} onDone=${application.again} />`}
    </p>
    <section>
      <h2>Over time</h2>
      <${Series} api=${api} kind="applications" name=${name} charts=${chartsOf(one)}
        concerns=${({ subject }) => subjects.includes(subject)} />
    </section>
    ${!isPipeline && html`<section>
      <h2>Models</h2>
      ${linked.length > 1 && html`<${Prices} api=${api} name=${name} />`}
      ${report.value ? html`<${Comparison} report=${report.value} />` : html`<${Waiting} error=${report.error} />`}
    </section>`}
    ${one.newcomers.length + one.ended_ramps.length > 0 && html`<section><h2>Newcomers</h2><${Newcomers} application=${one} /></section>`}
    ${one.watched.map((each) => html`<p key=${each.version}><${Watched} version=${each} /></p>`)}
    <section>
      <h2>Answers since the workers started</h2>
      ${report.value && html`<${Outcomes} report=${report.value} />`}
    </section>
    <${Confidence} api=${api} application=${one} />
    <section>
      <h2>What it learned in a context</h2>
      <${Contexts} api=${api} name=${name} />
    </section>
  `;
}

/** What a budget and full models do to choices now. */
function Prices({ api, name }) {
  const policy = usePoll(() => api.get(path("applications", name, "policy")), [api, name], REPORT_EVERY_MS);
  return html`${(policy.value?.prices ?? []).map((text) => html`<p key=${text}>${text}</p>`)}`;
}

function Facts({ application: one }) {
  const parameters = Object.keys(one.policy.parameters).length ? ` ${JSON.stringify(one.policy.parameters)}` : "";
  const facts = [
    ["input", one.input_type],
    ["SLO", milliseconds(one.slo_ms)],
    ["policy", one.policy.name + parameters],
    ["loss", one.loss.name],
    ...(one.label_field ? [["label field", one.label_field]] : []),
    ["default output", "default_output" in one ? JSON.stringify(one.default_output) : "none: such queries get an error"],
    ...(one.links.length || Object.keys(one.steps ?? {}).length ? [] : [["models", "none: every query gets the default or an error"]]),
  ];
  return html`<dl class="facts">${facts.map(([name, text]) => html`<div><dt>${name}</dt><dd>${text}</dd></div>`)}</dl>`;
}

/** The versions that it asks, and what they can do now. */
function Links({ api, links, names }) {
  const models = usePoll(() => api.get("models", { name: names }), [api]);
  if (!models.value) return html`<${Waiting} error=${models.error} />`;
  const rows = links.map((linked) => {
    const model = models.value.find(({ name }) => name === linked.model);
    const wanted = linked.version ?? model?.current;
    return { ...linked, found: model?.versions.find(({ version }) => version === wanted) };
  });
  const columns = [
    { name: "model", cell: ({ model, shadow }) => html`<a href=${link("models", model)}>${model}</a>${shadow ? " (shadow)" : ""}` },
    { name: "version", cell: ({ version, found }) => (version ? `pinned to ${version}` : found ? `${found.version}, the current one` : "none is current") },
    { name: "state", cell: ({ found }) => found && html`<${State} of=${found.condition} />` },
    { name: "replicas ready", isNumber: true, cell: ({ found }) => found && html`<${ReadyReplicas} of=${found} />` },
    { name: "last error", isText: true, cell: ({ found }) => (found && errorOf(found)) || "–" },
  ];
  return html`<${Table} title="Versions that it asks" columns=${columns} rows=${rows} keyOf=${({ model, version }) => `${model}:${version ?? ""}`} empty="" />`;
}

/** Why a version cannot do all that it should. */
function errorOf({ condition, last_error: own, replicas }) {
  return isBad(condition) && (own ?? replicas.find((replica) => replica.state !== "ready" && replica.last_error)?.last_error);
}

/** Why queries of the last minute got no model's answer; nothing if all did. */
function LastMinute({ recent }) {
  const rows = ["errors", "defaults"].flatMap((kind) =>
    Object.entries(recent?.[kind] ?? {}).map(([reason, count]) => ({ kind: kind.slice(0, -1), reason, count })));
  if (rows.length === 0) return null;
  const columns = [
    { name: "got", cell: (row) => row.kind },
    { name: "reason", cell: (row) => row.reason },
    { name: "queries", isNumber: true, cell: (row) => `${row.count} of ${Math.max(row.count, recent.queries)}` },
    { name: "the last explanation", cell: (row) => recent.explanations[row.reason] ?? "–" },
  ];
  return html`<section><h2>Without a model's answer in the last minute</h2>
    <${Table} title="Queries without a model's answer" columns=${columns} rows=${rows} keyOf=${(row) => `${row.kind} ${row.reason}`} empty="" />
  </section>`;
}

function chartsOf(application) {
  const slo = ({ length }) => ({ name: "SLO", values: Array(length).fill(application.slo_ms), isDashed: true });
  return [
    { title: "Latency", unit: "ms", lines: (of) => [...of.one("p50_ms", "p50"), ...of.one("p99_ms", "p99"), slo(of)], nothing: NO_QUERY },
    { title: "Queries", unit: "per second", lines: (of) => of.one("rate", "queries"), nothing: NO_QUERY },
    { title: "Late answers", unit: SHARE, lines: (of) => of.one("late_share", "late").map(smooth), nothing: NO_QUERY },
    {
      title: "Defaults by reason", unit: SHARE, lines: (of) => of.each("default_share.").map(smooth),
      nothing: "No query got the default in this time.",
    },
    {
      title: "Errors by reason", unit: SHARE, lines: (of) => of.each("error_share.").map(smooth),
      nothing: "No query got an error in this time.",
    },
    { title: "Models that answered", unit: SHARE, lines: (of) => of.each("answer_share.").map(smooth), nothing: "No model answered a query in this time." },
    { title: "Loss of each model", unit: "mean over 30 s", lines: (of) => of.each("mean_loss.").map(smooth), nothing: "No feedback came in this time." },
    ...(application.links.some((link) => link.cost != null)
      ? [{ title: "Cost of a query", unit: "mean over 30 s", lines: (of) => of.one("mean_cost", "cost").map(smooth), nothing: NO_QUERY }]
      : []),
  ];
}

function smooth(line) {
  return { ...line, values: smoothed(line.values) };
}

function Outcomes({ report }) {
  const shareOf = (count) => (report.queries ? percent(count / report.queries) : "–");
  const byReason = (kind, counts) => Object.entries(counts).map(([reason, count]) => ({ what: `${kind}: ${reason}`, count }));
  const rows = [
    { what: "queries", count: report.queries },
    { what: "not within the SLO", count: report.slo_misses },
    ...byReason("default", report.defaults),
    ...byReason("error", report.errors),
  ];
  const columns = [
    { name: "what", cell: (row) => row.what },
    { name: "count", isNumber: true, cell: (row) => row.count.toLocaleString("en") },
    { name: "share", isNumber: true, cell: (row) => shareOf(row.count) },
  ];
  return html`
    <${Table} title="Answers" columns=${columns} rows=${rows} keyOf=${(row) => row.what} empty="" />
    <p class="quiet">${number(report.feedback_per_s)} pieces of feedback per second.
      ${report.latency && ` Latency: p50 ${milliseconds(report.latency.p50_ms)}, p99 ${milliseconds(report.latency.p99_ms)}.`}</p>
  `;
}

function Newcomers({ application: { newcomers, ended_ramps: ended } }) {
  const columns = [
    { name: "version", cell: (one) => html`<a href=${link("models", one.model)}>${one.model}:${one.version}</a>` },
    { name: "share", isNumber: true, cell: (one) => ("ended_at" in one ? "–" : percent(one.share)) },
    { name: "feedback", isNumber: true, cell: feedbackText },
    { name: "mean loss", isNumber: true, cell: (one) => number(one.mean_loss) },
    { name: "mean loss of the rest", isNumber: true, cell: (one) => number(one.rest_mean_loss) },
    { name: "ramp", isText: true, cell: (one) => html`<${RampState} newcomer=${one} />` },
  ];
  return html`<${Table} title="Newcomers" columns=${columns} rows=${[...newcomers, ...ended]} keyOf=${(one) => `${one.model}:${one.version}`} empty="" />`;
}

/** A ramp that is over waits for nothing. A ramp that an older version of Clipper stopped has no counts. */
function feedbackText(one) {
  if (one.stopped && one.mean_loss === null) return "–";
  return one.stopped || "ended_at" in one ? counted(one.feedback, "answer") : `${one.feedback} of ${counted(one.enough_feedback, "answer")}`;
}

/** How far a ramp is, or how it ended. */
function RampState({ newcomer: one }) {
  if (one.stopped) return html`<strong class="bad">stopped: ${one.stopped}</strong>`;
  if ("ended_at" in one) return `ended ${day(one.ended_at)}: since then the policy decides its share`;
  const told = Math.min(one.feedback, one.enough_feedback);
  const text = told < one.enough_feedback ? `${percent(told / one.enough_feedback)} of the feedback` : "waits, since it may lose more than is allowed";
  return html`<meter min="0" max=${one.enough_feedback} value=${told} aria-label="feedback on ${one.model}:${one.version}" /> ${text}`;
}

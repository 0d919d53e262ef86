// One model: its versions and replicas, and the batching and scaling at work.

import { html } from "../html.js";
import { path } from "../api.js";
import { usePoll } from "../poll.js";
import { counted, day } from "../format.js";
import { ReadyReplicas, State, Waiting } from "../parts/notices.js";
import { Table } from "../parts/table.js";
import { link } from "../router.js";
import { Rollback, Scale } from "./model_actions.js";
import { Series } from "./series.js";

const NO_BATCH = "The model was sent no query in this time.";

const CHARTS = [
  { title: "Queries", unit: "per second", lines: (of) => of.one("rate", "queries"), nothing: NO_BATCH },
  {
    title: "Batches", unit: "queries",
    lines: (of) => [...of.one("batch_size", "mean size"), ...of.one("batch_limit", "limit").map(dashed)],
    nothing: NO_BATCH,
  },
  {
    title: "Where the time goes", unit: "ms",
    lines: (of) => [...of.one("queue_wait_ms", "wait in the queue"), ...of.one("batch_latency_ms", "compute")],
    nothing: NO_BATCH,
  },
  { title: "Cache hits", unit: "share", lines: (of) => of.one("cache_hit_share", "hits"), nothing: "No query looked for its output in the cache in this time." },
  {
    title: "Replicas", unit: "",
    lines: (of) => [...of.one("replicas_ready", "ready"), ...of.one("replicas_wanted", "target").map(dashed)],
    nothing: "No replica ran in this time.",
  },
];

function dashed(line) {
  return { ...line, isDashed: true };
}

/** @param {import("../main.js").Seen} seen */
export function Model({ api, mayAct, route }) {
  const name = route.parts[1];
  const model = usePoll(() => api.get(path("models", name)), [api, name]);
  const applications = usePoll(() => api.get("applications"), [api], 10_000);
  if (!model.value) return html`<${Waiting} error=${model.error} />`;
  const versions = model.value.versions.toReversed();
  const current = versions.find((version) => version.current);
  const users = (applications.value ?? []).filter((one) => one.links.some((linked) => linked.model === name));
  return html`
    <p>${current ? html`Version <strong>${current.version}</strong> is current. ` : "No version is current. "}
      ${users.length ? html`Asked by ${users.map((one, index) => html`${index ? ", " : ""}<a href=${link("applications", one.name)}>${one.name}</a>`)}.` : "No application asks it."}</p>
    ${current?.scaling_reason &&
    html`<p>It has ${counted(current.replicas_wanted, "replica")}${current.scaling ? ` of ${current.scaling.min} to ${current.scaling.max}` : ""}: ${current.scaling_reason}</p>`}
    <p class="buttons">
      <a class="button" href=${link("models", name, "logs")}>Logs</a>
      ${mayAct && html`<${Rollback} api=${api} model=${model.value} users=${users} onDone=${model.again} />`}
      ${mayAct && current && html`<${Scale} key=${current.version} api=${api} version=${current} onDone=${model.again} />`}
    </p>
    <section><h2>Versions</h2><${VersionTable} versions=${versions} /></section>
    ${versions.filter((version) => version.log_tail.length > 0).map((version) => html`<details key=${version.version} open=${version === versions[0]}>
      <summary>Last lines of version ${version.version}, which failed</summary>
      <pre tabindex="0" role="region" aria-label="Last lines of version ${version.version}">${version.log_tail.join("\n")}</pre>
    </details>`)}
    <section><h2>Replicas</h2><${ReplicaTable} replicas=${versions.flatMap((version) => version.replicas)} /></section>
    <section>
      <h2>Over time</h2>
      <${Series} api=${api} kind="models" name=${name} charts=${CHARTS} concerns=${({ subject }) => subject === `model ${name}` || subject === "server"} />
    </section>
  `;
}

/** Where a version came from, and the names of its variables, whose values are never shown. */
function about(version) {
  const names = [...(version.variables ?? []), ...(version.secrets ?? [])];
  const texts = names.length ? [`variables: ${names.join(", ")}`] : [];
  return version.source ? [`came from ${version.source}`, ...texts] : texts;
}

function VersionTable({ versions }) {
  const columns = [
    { name: "version", cell: (one) => html`${one.version}${one.current && html` <strong>current</strong>`}` },
    { name: "state", cell: (one) => html`<${State} of=${one.condition} />${one.progress ? ` ${one.progress}` : ""}` },
    { name: "replicas ready", isNumber: true, cell: (one) => html`<${ReadyReplicas} of=${one} />` },
    { name: "input", cell: (one) => one.input_type ?? "not known yet" },
    { name: "output", cell: (one) => (one.output_type ? `${one.output_type}, ${one.output_is_declared ? "declared" : "its first answer"}` : one.output_is_untyped ? "JSON of no type" : "not known yet") },
    { name: "batching", cell: (one) => one.batching.policy },
    { name: "cache", cell: (one) => (one.cache ? "on" : "off") },
    { name: "deployed", isShort: true, cell: (one) => day(one.created_at) },
    { name: "about it", isText: true, cell: (one) => html`${one.description ?? ""}${about(one).map((text) => html`<div class="quiet">${text}</div>`)}${[one.stopped && `was stopped: ${one.stopped}`, one.last_error, one.warning].filter(Boolean).map((text) => html`<div class="bad">${text}</div>`)}` },
  ];
  return html`<${Table} title="Versions" columns=${columns} rows=${versions} keyOf=${(one) => one.version} empty="It has no versions." />`;
}

function ReplicaTable({ replicas }) {
  const columns = [
    { name: "replica", cell: (one) => one.id },
    { name: "state", cell: (one) => html`<${State} of=${one.state} />` },
    { name: "pid", isNumber: true, cell: (one) => one.pid ?? "–" },
    { name: "restarts", isNumber: true, cell: (one) => one.restarts },
    { name: "batch limit", isNumber: true, cell: (one) => one.batch_limit ?? "–" },
    { name: "last error", isText: true, cell: (one) => one.last_error ?? "–" },
  ];
  return html`<${Table} title="Replicas" columns=${columns} rows=${replicas} keyOf=${(one) => one.id} empty="No replica runs." />`;
}

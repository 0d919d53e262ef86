// The whole server: is it ready, what is wrong, and how each application and model is doing.

import { html } from "../html.js";
import { usePoll } from "../poll.js";
import { counted, day, duration, latest, megabytes, milliseconds, number, percent } from "../format.js";
import { isBad, Limited, ReadyReplicas, State, Waiting } from "../parts/notices.js";
import { Sparkline } from "../parts/sparkline.js";
import { Table } from "../parts/table.js";
import { link } from "../router.js";
import { recentOf, sharesOf } from "./recent.js";
import { failedShareOf, isOverSlo, TOO_MANY, troubleOf } from "./trouble.js";

/** @param {import("../main.js").Seen} seen */
export function Overview({ api, status }) {
  const applications = usePoll(() => api.get("applications"), [api]);
  const models = usePoll(() => api.get("models"), [api]);
  const series = usePoll(() => api.get("series"), [api]);
  if (!status || !applications.value || !models.value) {
    return html`<${Waiting} error=${applications.error ?? models.error} />`;
  }
  return html`
    <${Readiness} status=${status} />
    <section>
      <h2>Applications</h2>
      <${ApplicationTable} applications=${applications.value} series=${series.value?.applications ?? {}} />
    </section>
    <section>
      <h2>Models</h2>
      <${ModelTable} models=${models.value} series=${series.value?.models ?? {}} />
      ${series.value?.left_out > 0 &&
      html`<p class="quiet">Not all series of ${counted(series.value.left_out, "application or model", "applications and models")} are recorded: there are too many.</p>`}
    </section>
    <section>
      <h2>Query workers</h2>
      <${WorkerTable} workers=${status.workers} series=${series.value?.workers ?? {}} />
    </section>
  `;
}

function Readiness({ status }) {
  const verdict = status.ready ? "Ready to take queries" : "Not ready";
  return html`<section aria-label="State of the server">
    <p role="status" class="notice ${status.ready ? (status.problems.length ? "busy" : "good") : "bad"}">
      <strong>${verdict}.</strong> Up for ${duration(status.uptime_s)}.
      ${" "}${status.problems.length > 0 ? `${counted(status.problems.length, "problem")}:` : "No problems."}
    </p>
    ${status.problems.length > 0 && html`<ul class="problems">${status.problems.map((text) => html`<li>${text}</li>`)}</ul>`}
    ${status.lease && html`<p>${leaderOf(status.lease)}</p>`}
    <p class="quiet">Queries at ${status.query_url}${status.grpc_address ? `, gRPC at ${status.grpc_address}` : ""}.
      ${status.certificate_expires_at && ` Its certificate is valid until ${day(status.certificate_expires_at)}.`}</p>
  </section>`;
}

function leaderOf(lease) {
  if (lease.leader == null) return `Who leads is not known; this server is a standby of ${lease.registry}.`;
  if (lease.role === "standby") return `The server at ${lease.leader} leads, with epoch ${lease.epoch}; this one is a standby.`;
  const standby = lease.standby == null ? "no server stands by" : `the server at ${lease.standby} stands by`;
  return `This server leads, with epoch ${lease.epoch}; ${standby}.`;
}

function ApplicationTable({ applications, series }) {
  const rows = applications.map((one) => ({ ...one, recent: recentOf(series[one.name]), shares: sharesOf(one.last_minute) }));
  rows.sort((one, other) => troubleOf(other) - troubleOf(one) || one.name.localeCompare(other.name));
  const limited = (share, judged = share) => html`<${Limited} text=${percent(share)} isOver=${judged > TOO_MANY} why="more than ${percent(TOO_MANY)}" />`;
  const columns = [
    { name: "name", cell: (one) => html`<a href=${link("applications", one.name)}>${one.name}</a>` },
    { name: "policy", cell: (one) => one.policy.name },
    { name: "queries/s", isNumber: true, cell: ({ recent }) => number(recent.rate) },
    { name: "last 2 minutes", cell: (one) => html`<${Sparkline} values=${series[one.name]?.rate} />` },
    {
      name: "p99", isNumber: true,
      cell: (one) => html`<${Limited} text=${milliseconds(one.recent.p99_ms)} isOver=${isOverSlo(one)} why="over the SLO" />`,
    },
    { name: "SLO", isNumber: true, cell: (one) => milliseconds(one.slo_ms) },
    { name: "late", isNumber: true, cell: ({ shares }) => limited(shares.late) },
    { name: "errors", isNumber: true, cell: ({ shares }) => limited(shares.errors) },
    {
      name: "defaults", isNumber: true,
      cell: ({ shares }) => html`${limited(shares.defaults, failedShareOf(shares))}${
        shares.asked_defaults > 0 && html`<div class="quiet">${percent(shares.asked_defaults)} low confidence</div>`}`,
    },
    { name: "try", cell: (one) => html`<a href=${link("applications", one.name, "try")} aria-label="Try ${one.name}">Try it</a>` },
  ];
  return html`<${Table} title="Applications" columns=${columns} rows=${rows} keyOf=${(one) => one.name}
    empty=${html`There are no applications. <code>clipper app create NAME --model MODEL</code> makes one.`} />
  ${rows.length > 0 && html`<p class="quiet">Numbers are of the last minute. The page of an application has the reasons.</p>`}`;
}

function ModelTable({ models, series }) {
  const rows = models.map((model) => {
    const current = model.versions.find((version) => version.current);
    const newest = model.versions.at(-1);
    return { name: model.name, current, newest, isBroken: [current, newest].some((version) => version !== undefined && (version.stopped || isBad(version.condition))) };
  });
  rows.sort((one, other) => other.isBroken - one.isBroken || one.name.localeCompare(other.name));
  const columns = [
    { name: "name", cell: ({ name }) => html`<a href=${link("models", name)}>${name}</a>` },
    { name: "current version", cell: ({ current }) => current?.version ?? "none" },
    { name: "state", cell: ({ current, newest }) => html`<${ModelState} current=${current} newest=${newest} />` },
    {
      name: "replicas ready", isNumber: true,
      cell: ({ current }) => current && html`<${ReadyReplicas} of=${current} />`,
    },
    { name: "queries/s", isNumber: true, cell: ({ name }) => number(recentOf(series[name]).rate) },
    { name: "logs", cell: ({ name }) => html`<a href=${link("models", name, "logs")} aria-label="Logs of ${name}">Logs</a>` },
  ];
  return html`<${Table} title="Models" columns=${columns} rows=${rows} keyOf=${(one) => one.name}
    empty=${html`There are no models. <code>clipper deploy NAME MODEL</code> deploys one.`} />`;
}

function ModelState({ current, newest }) {
  const other = newest?.stopped ? "stopped" : newest?.condition;
  const isNewer = newest !== undefined && newest.version !== current?.version && !["sleeping", "ready"].includes(other);
  return html`
    ${current && html`<${State} of=${current.condition} />`}
    ${isNewer && html`${current && "; "}version ${newest.version} <${State} of=${other} />`}
  `;
}

function WorkerTable({ workers, series }) {
  const columns = [
    { name: "worker", cell: (worker) => String(worker.index) },
    { name: "state", cell: (worker) => html`<${State} of=${worker.state} />` },
    { name: "pid", isNumber: true, cell: (worker) => worker.pid },
    { name: "processor", isNumber: true, cell: ({ index }) => percent(latest(series[index]?.cpu_share)) },
    { name: "memory", isNumber: true, cell: ({ index }) => megabytes(latest(series[index]?.rss_bytes)) },
    { name: "restarts", isNumber: true, cell: (worker) => worker.restarts },
    { name: "last error", isText: true, cell: (worker) => worker.last_error ?? "–" },
  ];
  return html`<${Table} title="Query workers" columns=${columns} rows=${workers} keyOf=${(worker) => String(worker.index)} empty="There are no workers." />`;
}

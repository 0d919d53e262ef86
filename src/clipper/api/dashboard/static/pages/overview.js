// The whole server: is it ready, what is wrong, and how each application and model is doing.

import { html } from "../html.js";
import { usePoll } from "../poll.js";
import { counted, day, duration, latest, megabytes, milliseconds, number, percent } from "../format.js";
import { isBad, Limited, ReadyReplicas, State, Waiting } from "../parts/notices.js";
import { Sparkline } from "../parts/sparkline.js";
import { Table } from "../parts/table.js";
import { link } from "../router.js";
import { feedbackOn, NewcomerActions, Watched } from "./newcomer_actions.js";
import { answersOf, recentOf, sharesOf } from "./recent.js";
import { Rollback, Scale } from "./model_actions.js";
import { failedShareOf, inTimeOf, isOverSlo, TOO_MANY, troubledFor, troubleOf, whyTroubled } from "./trouble.js";

// The page of an application has all of them.
const MOST_ANSWERS = 3;

/** @param {import("../main.js").Seen} seen */
export function Overview({ api, status, mayAct }) {
  const applications = usePoll(() => api.get("applications"), [api]);
  const models = usePoll(() => api.get("models"), [api]);
  const series = usePoll(() => api.get("series"), [api]);
  if (!status || !applications.value || !models.value) {
    return html`<${Waiting} error=${applications.error ?? models.error} />`;
  }
  const judged = applications.value.map((one) => judgedOf(one, series.value));
  return html`
    <${Readiness} status=${status} applications=${judged} />
    <section>
      <h2>Applications</h2>
      <${ApplicationTable} applications=${judged} series=${series.value?.applications ?? {}} />
    </section>
    ${judged.some(isTrying) && html`<section>
      <h2>New versions</h2>
      <ul class="problems">${judged.filter(isTrying).map((one) => html`<${Trial} key=${one.name} api=${api} of=${one} mayAct=${mayAct}
        onDone=${() => { applications.again(); models.again(); }} />`)}</ul>
    </section>`}
    <section>
      <h2>Models</h2>
      <${ModelTable} models=${models.value} series=${series.value?.models ?? {}}
        api=${api} applications=${applications.value} mayAct=${mayAct} onDone=${models.again} />
      ${series.value?.left_out > 0 &&
      html`<p class="quiet">Not all series of ${counted(series.value.left_out, "application or model", "applications and models")} are recorded: there are too many.</p>`}
    </section>
    <section>
      <h2>Query workers</h2>
      <${WorkerTable} workers=${status.workers} series=${series.value?.workers ?? {}} />
    </section>
    ${status.gpus?.length > 0 && html`<section>
      <h2>GPUs</h2>
      <${GpuTable} gpus=${status.gpus} />
    </section>`}
  `;
}

/** An application with what it did lately, and whether that breaks its objective. */
function judgedOf(application, series) {
  const own = series?.applications[application.name];
  const one = { ...application, recent: recentOf(own), shares: sharesOf(application.last_minute) };
  const trouble = troubleOf(one);
  return { ...one, trouble, troubledForS: trouble ? troubledFor(own, series?.step_s ?? 0) : 0, why: whyTroubled(one) };
}

function Readiness({ status, applications }) {
  const verdict = status.ready ? "Ready to take queries" : "Not ready";
  const troubled = applications.filter((one) => one.trouble > 0);
  const asked = applications.filter((one) => one.shares.late !== null);
  const mood = !status.ready ? "bad" : status.problems.length || troubled.length ? "busy" : "good";
  return html`<section aria-label="State of the server">
    <p role="status" class="notice ${mood}">
      <strong>${verdict}.</strong> Up for ${duration(status.uptime_s)}.
      ${" "}${status.problems.length > 0 ? `${counted(status.problems.length, "problem")}:` : "No problems."}
      ${" "}${objectives(asked, troubled)}
    </p>
    ${status.problems.length > 0 && html`<ul class="problems">${status.problems.map((text) => html`<li>${text}</li>`)}</ul>`}
    ${status.lease && html`<p>${leaderOf(status.lease)}</p>`}
    <p class="quiet">Queries at ${status.query_url}${status.grpc_address ? `, gRPC at ${status.grpc_address}` : ""}.
      ${status.certificate_expires_at && ` Its certificate is valid until ${day(status.certificate_expires_at)}.`}</p>
  </section>`;
}

function objectives(asked, troubled) {
  if (troubled.length > 0) {
    return html`<strong>${counted(troubled.length, "application misses its", "applications miss their")} objective</strong>: ${troubled.map((one) => one.name).join(", ")}.`;
  }
  if (asked.length === 0) return "No application was asked in the last minute.";
  return asked.length === 1 ? "The application that was asked keeps its objective." : `All ${asked.length} applications that were asked keep their objectives.`;
}

function leaderOf(lease) {
  if (lease.leader == null) return `Who leads is not known; this server is a standby of ${lease.registry}.`;
  if (lease.role === "standby") return `The server at ${lease.leader} leads, with epoch ${lease.epoch}; this one is a standby.`;
  const standby = lease.standby == null ? "no server stands by" : `the server at ${lease.standby} stands by`;
  return `This server leads, with epoch ${lease.epoch}; ${standby}.`;
}

function ApplicationTable({ applications, series }) {
  const rows = applications.toSorted((one, other) => other.trouble - one.trouble || one.name.localeCompare(other.name));
  const limited = (share, judged = share) => html`<${Limited} text=${percent(share)} isOver=${judged > TOO_MANY} why="more than ${percent(TOO_MANY)}" />`;
  const columns = [
    { name: "name", cell: (one) => html`<a href=${link("applications", one.name)}>${one.name}</a>` },
    { name: "within its SLO", isShort: true, cell: (one) => html`<${InTime} of=${one} late=${series[one.name]?.late_share} />` },
    ...(rows.some(({ why }) => why.length) ? [{ name: "why it misses its objective", isText: true, cell: (one) => html`<${Why} of=${one} />` }] : []),
    { name: "policy", cell: (one) => html`${one.policy.name}<${Stopped} of=${one} />` },
    { name: "answered by", isShort: true, cell: (one) => html`<${Answers} of=${answersOf(one.last_minute)} />` },
    { name: "queries/s", isNumber: true, cell: ({ recent }) => number(recent.rate) },
    {
      name: "p99 of SLO", isNumber: true,
      cell: (one) => html`<${Limited} text=${milliseconds(one.recent.p99_ms)} isOver=${isOverSlo(one)} why="over the SLO" /> of ${milliseconds(one.slo_ms)}`,
    },
    { name: "errors", isNumber: true, cell: ({ shares }) => limited(shares.errors) },
    {
      name: "defaults", isNumber: true,
      cell: ({ shares }) => html`${limited(shares.defaults, failedShareOf(shares))}${
        shares.asked_defaults > 0 && html`<div class="quiet">${percent(shares.asked_defaults)} low confidence</div>`}`,
    },
    { name: "try", isShort: true, cell: (one) => html`<a href=${link("applications", one.name, "try")} aria-label="Try ${one.name}">Try it</a>` },
  ];
  return html`<${Table} title="Applications" columns=${columns} rows=${rows} keyOf=${(one) => one.name}
    empty=${html`There are no applications. <code>clipper app create NAME --model MODEL</code> makes one.`} />
  ${rows.length > 0 && html`<p class="quiet">Numbers are of the last minute, lines of the last two. The page of an application has more.</p>`}`;
}

/** The share of queries within the SLO as a bar and a number, and over two minutes as a line. */
function InTime({ of: { name, shares }, late }) {
  const share = inTimeOf(shares);
  if (share === null) return html`<span class="quiet">not asked</span>`;
  return html`<span class="in-time">
    <meter min="0" max="1" low=${1 - TOO_MANY} optimum="1" value=${share} aria-label="Share of ${name} within its SLO" />
    <${Limited} text=${percent(share)} isOver=${share < 1 - TOO_MANY} why="less than ${percent(1 - TOO_MANY)}" />
    <${Sparkline} values=${late?.map((value) => (value === null ? null : 1 - value))} />
  </span>`;
}

/** The versions that were tried and stopped. */
function Stopped({ of: { name, newcomers } }) {
  return newcomers.filter((one) => one.stopped).map((one) => html`<div class="quiet"><a href=${link("applications", name)}>${one.model}:${one.version}</a> was stopped</div>`);
}

/** What an application's new versions get, and what feedback says of them. */
function Trial({ api, of: one, mayAct, onDone }) {
  const ramped = one.newcomers.filter((each) => !each.stopped);
  return html`<li>
    <a href=${link("applications", one.name)}>${one.name}</a>:
    ${ramped.map((each) => html` ${each.model}:${each.version} gets ${percent(each.share)} of the queries: ${feedbackOn(each)}.`)}
    ${one.watched.map((each) => html` <${Watched} version=${each} />.`)}
    ${mayAct && html`<p class="buttons"><${NewcomerActions} api=${api} application=${one} onDone=${onDone} /></p>`}
  </li>`;
}

function isTrying({ newcomers, watched }) {
  return watched.length > 0 || newcomers.some((one) => !one.stopped);
}

function Answers({ of: answers }) {
  const [shown, others] = [answers.slice(0, MOST_ANSWERS), answers.length - MOST_ANSWERS];
  return html`${shown.map(({ model, share }) => html`<div>${model} <span class="quiet">${percent(share)}</span></div>`)}
    ${others > 0 && html`<div class="quiet">and ${counted(others, "other")}</div>`}`;
}

function Why({ of: { why, troubledForS } }) {
  if (why.length === 0) return null;
  const [first, ...others] = why;
  return html`${troubledForS > 0 && html`<strong>for ${duration(troubledForS)}: </strong>`}${first}
    ${others.length > 0 && html`<div class="quiet">${others.join("; ")}</div>`}`;
}

function ModelTable({ models, series, api, applications, mayAct, onDone }) {
  const rows = models.map((model) => {
    const current = model.versions.find((version) => version.current);
    const newest = model.versions.at(-1);
    return { model, name: model.name, current, newest, isBroken: [current, newest].some((version) => version !== undefined && (version.stopped || isBad(version.condition))) };
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
  const usersOf = (name) => applications.filter((one) => one.links.some((linked) => linked.model === name));
  if (mayAct) {
    columns.push({
      name: "act",
      cell: ({ model, current }) => html`<span class="buttons">
        <${Rollback} api=${api} model=${model} users=${usersOf(model.name)} onDone=${onDone} />
        ${current && html`<${Scale} key=${current.version} api=${api} version=${current} onDone=${onDone} />`}
      </span>`,
    });
  }
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

function GpuTable({ gpus }) {
  const columns = [
    { name: "GPU", cell: (gpu) => gpu.id },
    { name: "busy", isNumber: true, cell: (gpu) => percent(gpu.utilization) },
    { name: "memory in use", isNumber: true, cell: (gpu) => megabytes(gpu.memory_used_bytes) },
    { name: "memory", isNumber: true, cell: (gpu) => megabytes(gpu.memory_bytes) },
  ];
  return html`<${Table} title="GPUs" columns=${columns} rows=${gpus} keyOf=${(gpu) => gpu.id} empty="There are no GPUs." />`;
}

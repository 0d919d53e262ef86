// The server's events and decisions: deployments, rollbacks, restarts, scaling, guardrails.

import { html, useMemo, useState } from "../html.js";
import { Events as Log } from "../events.js";
import { usePoll } from "../poll.js";
import { counted, day } from "../format.js";
import { Waiting } from "../parts/notices.js";
import { Table } from "../parts/table.js";
import { link } from "../router.js";

const SHOWN = 1_000;
const LEVELS = { warning: "busy", error: "bad" };

/** @param {import("../main.js").Seen} seen */
export function Events({ api }) {
  const log = useMemo(() => new Log(api, SHOWN), [api]);
  const events = usePoll(() => log.read(), [log]);
  const [kind, setKind] = useState("");
  const [who, setWho] = useState("");
  if (!events.value) return html`<${Waiting} error=${events.error} />`;
  const kinds = [...new Set(events.value.map((event) => event.kind))].sort();
  const everybody = [...new Set(events.value.map((event) => event.who).filter(Boolean))].sort();
  const rows = events.value.filter((event) => (kind === "" || event.kind === kind) && (who === "" || event.who === who)).reverse();
  const columns = [
    { name: "when", isShort: true, cell: (event) => day(event.time_s) },
    { name: "kind", cell: (event) => event.kind.replaceAll("_", " ") },
    { name: "of", isText: true, cell: (event) => html`<${Subject} event=${event} />` },
    { name: "level", cell: (event) => (event.level === "info" ? "info" : html`<strong class="state ${LEVELS[event.level]}">${event.level}</strong>`) },
    { name: "what happened", isText: true, cell: (event) => event.message },
    { name: "who", isText: true, cell: (event) => (event.address ? `${event.who} from ${event.address}` : event.who) },
  ];
  return html`
    <p class="choice">
      <label>Kind <select value=${kind} onChange=${(event) => setKind(event.target.value)}>
        <option value="">all</option>
        ${kinds.map((one) => html`<option value=${one}>${one.replaceAll("_", " ")}</option>`)}
      </select></label>
      <label>Who <select value=${who} onChange=${(event) => setWho(event.target.value)}>
        <option value="">all</option>
        ${everybody.map((one) => html`<option value=${one}>${one}</option>`)}
      </select></label>
      <span class="quiet">The latest ${counted(rows.length, "event")}, newest first.</span>
    </p>
    <${Table} title="Events" columns=${columns} rows=${rows} keyOf=${(event) => `${event.id} ${event.kind} ${event.subject} ${event.message} ${event.who}`} empty="Nothing has happened yet." />
  `;
}

/** What an event is of, as a link to its page if there is one. */
function Subject({ event: { subject, version } }) {
  const [noun, name] = subject.split(" ");
  const text = subject + (version ? `, version ${version}` : "");
  return ["application", "model"].includes(noun) ? html`<a href=${link(`${noun}s`, name)}>${text}</a>` : text;
}

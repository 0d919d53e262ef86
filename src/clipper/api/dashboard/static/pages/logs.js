// The logs of a model's containers, or those of the server and its query workers on all nodes; followed.

import { html, useEffect, useRef, useState } from "../html.js";
import { path } from "../api.js";
import { EVERY_MS, usePoll } from "../poll.js";
import { Waiting } from "../parts/notices.js";
import { link } from "../router.js";

const LINES = [100, 1000, 10000];
const AT_THE_END_PX = 40;

/** @param {import("../main.js").Seen} seen */
export function Logs({ api, route }) {
  const model = route.parts[1];
  const [noun, of] = model ? ["replica", path("models", model, "logs")] : ["name", "logs"];
  const [lines, setLines] = useState(LINES[0]);
  const [isFollowed, setIsFollowed] = useState(true);
  const [chosen, setChosen] = useState("");
  const [wanted, setWanted] = useState("");
  const load = () => api.get(of, { lines, ...(chosen && { [noun]: chosen }) });
  const logs = usePoll(load, [api, of, lines, chosen], isFollowed ? EVERY_MS : null);
  const known = useRef(new Set());
  for (const one of Object.keys(logs.value?.lines ?? {})) known.current.add(one);
  const found = Object.entries(logs.value?.lines ?? {}).map(([one, texts]) => [one, texts.filter((text) => text.includes(wanted))]);
  return html`
    <p class="choice">
      <label>${model ? "Replica" : "Log"} <select onChange=${(event) => setChosen(event.target.value)}>
        <option value="">all</option>
        ${[...known.current].sort().map((one) => html`<option value=${one} selected=${one === chosen}>${one}</option>`)}
      </select></label>
      <label>Lines <select onChange=${(event) => setLines(Number(event.target.value))}>
        ${LINES.map((count) => html`<option value=${count} selected=${count === lines}>${count}</option>`)}
      </select></label>
      <label>Only lines with <input type="search" value=${wanted} onInput=${(event) => setWanted(event.target.value)} /></label>
      <label><input type="checkbox" checked=${isFollowed} onChange=${(event) => setIsFollowed(event.target.checked)} /> Follow</label>
      ${model && html`<a href=${link("models", model)}>Model ${model}</a>`}
    </p>
    ${logs.error && html`<p role="alert" class="notice bad">${logs.error.message}</p>`}
    ${!logs.value && !logs.error && html`<${Waiting} />`}
    ${logs.value && found.length === 0 && html`<p class="quiet">It has no logs: no replica has run.</p>`}
    ${found.map(([one, texts]) => html`<${Log} key=${one} name=${one} texts=${texts} isFollowed=${isFollowed} />`)}
  `;
}

/** The lines of one log. It stays at the end while lines come, unless who reads has scrolled up. */
function Log({ name, texts, isFollowed }) {
  const place = useRef(null), isAtEnd = useRef(true);
  useEffect(() => {
    if (isFollowed && isAtEnd.current) place.current.scrollTop = place.current.scrollHeight;
  }, [texts]);
  const scrolled = ({ target }) => {
    isAtEnd.current = target.scrollHeight - target.scrollTop - target.clientHeight < AT_THE_END_PX;
  };
  return html`<section>
    <h2>${name}</h2>
    <pre class="log" ref=${place} tabindex="0" role="region" aria-label="Log of ${name}" onScroll=${scrolled}>${texts.join("\n") || "no such lines"}</pre>
  </section>`;
}

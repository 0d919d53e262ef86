// Ask an application, see why it answers as it does, and give feedback.

import { html, useState } from "../html.js";
import { path } from "../api.js";
import { usePoll } from "../poll.js";
import { milliseconds, percent } from "../format.js";
import { Waiting } from "../parts/notices.js";
import { link } from "../router.js";
import { InputField } from "./input_field.js";
import { exampleOf, readType, samples } from "./inputs.js";
import { ASKED_FOR } from "./recent.js";

/** @param {import("../main.js").Seen} seen */
export function Try({ api, mayAct, status, route }) {
  const name = route.parts[1];
  const application = usePoll(() => api.get(path("applications", name)), [api, name], null);
  if (!application.value || !status) return html`<${Waiting} error=${application.error} />`;
  return html`<${Query} api=${api} mayAct=${mayAct} url=${status.query_url} application=${application.value} />`;
}

function Query({ api, mayAct, url, application }) {
  const { name } = application;
  const type = readType(application.input_type);
  const [text, setText] = useState(() => textOf(exampleOf(type)));
  const [context, setContext] = useState("");
  const [key, setKey] = useState("");
  const [answer, setAnswer] = useState(null);
  const [problem, setProblem] = useState("");
  const input = readInput(type, text);
  const headers = key ? { "Clipper-Api-Key": key } : {};
  const ask = async (event) => {
    event.preventDefault();
    setProblem("");
    const began = performance.now();
    try {
      const body = { input: input.value, ...(context && { context }) };
      const found = await api.call("POST", path("applications", name, "predict"), { body, headers });
      setAnswer({ ...found, took: performance.now() - began });
    } catch (error) {
      setAnswer(null);
      setProblem(error.message);
    }
  };
  return html`
    <p>It takes <code>${application.input_type}</code> and answers within ${milliseconds(application.slo_ms)}. <a href=${link("applications", name)}>Application ${name}</a></p>
    <form onSubmit=${ask} class="stack">
      <${InputField} type=${type} text=${text} onText=${setText} />
      ${input.problem && html`<p role="alert" class="notice bad">${input.problem}</p>`}
      <p class="row">
        <label>Context <input value=${context} maxlength="1000" onInput=${(event) => setContext(event.target.value)} /></label>
        <label>Key <input type="password" autocomplete="off" value=${key} onInput=${(event) => setKey(event.target.value)} /></label>
      </p>
      <p class="quiet">The context and the key may be empty, unless the application requires a key. The query counts like any other: in the metrics, in limits, and for the policy.</p>
      <p><button type="submit" class="main" disabled=${!mayAct || Boolean(input.problem)}>Ask</button>
        ${!mayAct && html` <span class="quiet">Only a token of the role admin may ask: queries have effects.</span>`}</p>
    </form>
    <div aria-live="polite">
      ${problem && html`<p class="notice bad">${problem}</p>`}
      ${answer && html`<${Answer} answer=${answer} />`}
    </div>
    ${answer && html`<${Feedback} key=${answer.query_id} api=${api} name=${name} headers=${headers} label=${labelOf(answer.output, application.label_field)} queryId=${answer.query_id} />`}
    <section>
      <h2>The same from elsewhere</h2>
      ${!input.problem &&
      samples({ url, application: name, type, input: input.value, context, hasKey: Boolean(key) }).map(
        (sample) => html`<h3>${sample.name}</h3><pre tabindex="0" role="region" aria-label="By ${sample.name}">${sample.code}</pre>`,
      )}
    </section>
  `;
}

function Answer({ answer }) {
  return html`<section>
    <h2>Answer</h2>
    <pre tabindex="0" role="region" aria-label="Output">${JSON.stringify(answer.output, null, 1)}</pre>
    <p>${answer.default ? html`<strong class=${answer.default_reason === ASKED_FOR ? "" : "bad"}>This is the default output</strong>, because of ${answer.default_reason.replaceAll("_", " ")}: ${answer.default_explanation}.` : answeredBy(answer)}
      ${" "}Confidence ${percent(answer.confidence)}. It took ${milliseconds(answer.took)}, with the way through this page. Query ${answer.query_id}.</p>
    ${"low_confidence_output" in answer && html`<p>Without the threshold the answer would be <code>${JSON.stringify(answer.low_confidence_output)}</code>.</p>`}
  </section>`;
}

/**
 * The value of an output that labels are compared with.
 * @param {any} output
 * @param {string?} [labelField] the name that the application says
 */
export function labelOf(output, labelField) {
  if (output === null || typeof output !== "object" || Array.isArray(output)) return output;
  const name = labelField || "label";
  if (name in output) return output[name];
  const single = Object.values(output).filter((value) => typeof value !== "object");
  return !labelField && single.length === 1 ? single[0] : output;
}

function Feedback({ api, name, headers, label: given, queryId }) {
  const [label, setLabel] = useState(() => JSON.stringify(given));
  const [said, setSaid] = useState("");
  const read = readJson(label);
  const send = async (event) => {
    event.preventDefault();
    try {
      const body = { query_id: queryId, label: read.value };
      const { duplicate } = await api.call("POST", path("applications", name, "observe"), { body, headers });
      setSaid(duplicate ? "There was feedback on this query before: it counts once." : "The feedback is kept, and the policy learns from it.");
    } catch (error) {
      setSaid(error.message);
    }
  };
  return html`<section>
    <h2>Feedback</h2>
    <form onSubmit=${send} class="row">
      <label>The right answer, as JSON <input required value=${label} onInput=${(event) => setLabel(event.target.value)} /></label>
      <button type="submit" disabled=${Boolean(read.problem)}>Send feedback</button>
    </form>
    <p role="status">${read.problem || said}</p>
  </section>`;
}

/** Which versions the answer is from. An application need not tell. */
function answeredBy({ model, version, models = model ? [`${model}:${version}`] : [] }) {
  if (models.length === 0) return "A model answered.";
  const links = models.map((each, index) => html`${index > 0 && ", "}<a href=${link("models", each.split(":")[0])}>${each}</a>`);
  return html`Answered by ${links}.`;
}

/** What the input's field has: the text itself, or JSON. */
function textOf(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}

function readInput(type, text) {
  return type.dtype === "string" || type.dtype === "bytes" ? { value: text } : readJson(text);
}

function readJson(text) {
  try {
    return { value: JSON.parse(text) };
  } catch (error) {
    return { problem: `This is not JSON: ${error.message}` };
  }
}

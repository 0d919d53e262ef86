// How confident answers were, and how much the application lost because it had to learn. The values are from the metrics, since the server's start.

import { html } from "../html.js";
import { histogram, samplesOf, total } from "../metrics.js";
import { usePoll } from "../poll.js";
import { counted, number, percent } from "../format.js";
import { Calibration } from "./calibration.js";

// All workers are asked for it.
const EVERY_MS = 10_000;

/** @param {{api: import("../api.js").Api, application: any}} given */
export function Confidence({ api, application }) {
  const { name } = application;
  const metrics = usePoll(async () => samplesOf(await api.get("metrics", { application: name }), name), [api, name], EVERY_MS);
  if (!metrics.value) return null;
  const regret = total(metrics.value, "clipper_selection_regret");
  const against = metrics.value.find((sample) => sample.name === "clipper_selection_regret")?.labels.against;
  const best = against === "context" ? "the best model of each context" : "its best single model";
  const bins = histogram(metrics.value, "clipper_selection_confidence");
  const count = bins.reduce((sum, bin) => sum + bin.count, 0);
  const most = Math.max(1, ...bins.map((bin) => bin.count));
  return html`<section>
    <h2>Regret and confidence</h2>
    <p>Regret: <strong>${number(regret)}</strong>. Its answers have lost that much more than ${best} would have, on the same feedback.</p>
    <div class="charts">
      <div>
        ${count === 0
          ? html`<p class="quiet">No answer has had a confidence yet: with one model it is always 1.</p>`
          : html`<table class="bars">
              <caption>Confidence of ${counted(count, "answer")}</caption>
              <thead><tr><th scope="col">up to</th><th scope="col" class="number">share</th><th scope="col"><span class="unseen">as a bar</span></th></tr></thead>
              <tbody>
                ${bins.filter((bin) => bin.count > 0).map((bin) => html`<tr>
                  <th scope="row">${Number.isFinite(bin.upTo) ? bin.upTo : 1}</th>
                  <td class="number">${percent(bin.count / count)}</td>
                  <td><meter min="0" max=${most} value=${bin.count} aria-label="share up to ${bin.upTo}" /></td>
                </tr>`)}
              </tbody>
            </table>`}
      </div>
      <${Calibration} api=${api} application=${application} />
    </div>
  </section>`;
}

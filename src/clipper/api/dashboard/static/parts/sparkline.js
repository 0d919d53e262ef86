// A small line without axes. The numbers beside it say the same, so screen readers leave it out.

import { html } from "../html.js";

const WIDTH = 120, HEIGHT = 24;

/** @param {{values: (number | null)[] | undefined}} given the latest last */
export function Sparkline({ values }) {
  const known = (values ?? []).filter((value) => value !== null);
  if (known.length < 2) return null;
  const highest = Math.max(...known) || 1;
  const step = WIDTH / (values.length - 1);
  let path = "", pen = "M";
  values.forEach((value, index) => {
    if (value === null) pen = "M";
    else {
      path += `${pen}${(index * step).toFixed(1)} ${(HEIGHT - 2 - (value / highest) * (HEIGHT - 4)).toFixed(1)}`;
      pen = "L";
    }
  });
  return html`<svg class="sparkline" viewBox="0 0 ${WIDTH} ${HEIGHT}" width=${WIDTH} height=${HEIGHT} aria-hidden="true">
    <path d=${path} fill="none" stroke="currentColor" stroke-width="1.5" />
  </svg>`;
}

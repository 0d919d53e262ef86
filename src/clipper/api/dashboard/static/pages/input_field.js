// The form for one input, by its type.

import { html } from "../html.js";

// So many numbers have a field each; more are easier to paste as one JSON text.
const MOST_FIELDS = 12;

/**
 * @param {object} given
 * @param {import("./inputs.js").InputType} given.type
 * @param {string} given.text the input: a text, bytes in base64, or JSON
 * @param {(text: string) => void} given.onText
 */
export function InputField({ type, text, onText }) {
  const typed = (event) => onText(event.target.value);
  if (type.dtype === "string") return html`<label>Input, a text <textarea rows="4" value=${text} onInput=${typed}></textarea></label>`;
  if (type.dtype === "bytes") {
    const chosen = async (event) => onText(await base64(event.target.files[0]));
    return html`
      <label>Input, a file <input type="file" onChange=${chosen} /></label>
      <label>or its bytes in base64 <textarea rows="4" value=${text} onInput=${typed}></textarea></label>`;
  }
  const numbers = fewNumbers(type, text);
  if (numbers === null) return html`<label>Input, as JSON <textarea rows="6" spellcheck=${false} value=${text} onInput=${typed}></textarea></label>`;
  const change = (index, value) => onText(JSON.stringify(numbers.with(index, value)));
  return html`<fieldset>
    <legend>Input</legend>
    ${numbers.map((value, index) =>
      type.dtype === "bool"
        ? html`<label>${index} <input type="checkbox" checked=${value} onChange=${(event) => change(index, event.target.checked)} /></label>`
        : html`<label>${index} <input type="number" step="any" required value=${value} onInput=${(event) => change(index, event.target.valueAsNumber)} /></label>`,
    )}
  </fieldset>`;
}

/** The numbers of a short list of a fixed length; null for other inputs. */
function fewNumbers({ shape }, text) {
  if (shape.length !== 1 || shape[0] === null || shape[0] > MOST_FIELDS) return null;
  return JSON.parse(text);
}

async function base64(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}

// The form for one input, by its type.

import { html } from "../html.js";

// Up to this many numbers have a field each; more are easier to paste as one JSON text.
const MOST_FIELDS = 12;
const MOST_RECORD_FIELDS = 60;

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
  const record = fewFields(type, text);
  if (record !== null) {
    const change = (name, value) => onText(JSON.stringify({ ...record, [name]: value }));
    return html`<fieldset>
      <legend>Input</legend>
      ${type.fields.map((field) => html`<${RecordField} key=${field.name} field=${field} value=${record[field.name]} onValue=${(value) => change(field.name, value)} />`)}
    </fieldset>`;
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

/** A box for one field of a record. An empty one is a missing value, or the field's default. */
function RecordField({ field: { name, type, isNullable, fallback, categories }, value, onValue }) {
  const missing = isNullable ? null : undefined;
  const isRequired = !isNullable && fallback === undefined;
  if (categories.length) {
    const chosen = (event) => onValue(event.target.value === "" ? missing : categories[Number(event.target.value)]);
    return html`<label>${name} <select value=${categories.indexOf(value)} onChange=${chosen}>
      ${!isRequired && html`<option value="">missing</option>`}
      ${categories.map((each, index) => html`<option value=${index}>${String(each)}</option>`)}
    </select></label>`;
  }
  if (type.dtype === "string") {
    const typed = (event) => onValue(event.target.value === "" && !isRequired ? missing : event.target.value);
    return html`<label>${name} <input value=${value ?? ""} onInput=${typed} /></label>`;
  }
  if (type.dtype === "bool" && type.shape.length === 0 && isRequired) {
    return html`<label>${name} <input type="checkbox" checked=${value} onChange=${(event) => onValue(event.target.checked)} /></label>`;
  }
  if (type.shape.length === 0 && type.dtype !== "bytes" && type.dtype !== "bool") {
    const typed = (event) => onValue(event.target.value === "" ? missing : event.target.valueAsNumber);
    return html`<label>${name} <input type="number" step="any" required=${isRequired} value=${value ?? ""} onInput=${typed} /></label>`;
  }
  // JSON, once it is complete: until then the last complete value counts.
  const typed = (event) => {
    try {
      event.target.setCustomValidity("");
      onValue(event.target.value === "" ? missing : JSON.parse(event.target.value));
    } catch (error) {
      event.target.setCustomValidity(`This is not JSON: ${error.message}`);
    }
  };
  return html`<label>${name}, as JSON <input defaultValue=${value === undefined ? "" : JSON.stringify(value)} onInput=${typed} /></label>`;
}

/** A record of not too many fields; null for other inputs. */
function fewFields({ fields }, text) {
  return fields === undefined || fields.length > MOST_RECORD_FIELDS ? null : JSON.parse(text);
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

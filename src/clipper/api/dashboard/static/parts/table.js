// Tables: with a search and a bound on the rows shown, so that a thousand models stay a page one can read. On a phone
// style.css shows each row as a paragraph with the columns' names in it, so that nothing is beyond the screen's edge.

import { html, useState } from "../html.js";
import { counted } from "../format.js";

// More than fit on any screen; a browser lays out so many at once without a pause.
const SHOWN = 100;
const SEARCHED_FROM = 20;

/**
 * @typedef {{name: string, cell: (row: any) => any, isNumber?: boolean, isShort?: boolean, isText?: boolean}} Column
 *   cell: what the column shows of a row; isShort: on one line; isText: of any length
 * @param {object} given
 * @param {string} given.title names the table for screen readers
 * @param {Column[]} given.columns the first is each row's heading
 * @param {any[]} given.rows
 * @param {(row: any) => string} given.keyOf also what a search looks at
 * @param {any} given.empty what to say without rows
 */
export function Table({ title, columns, rows, keyOf, empty }) {
  const [wanted, setWanted] = useState("");
  const [showsAll, setShowsAll] = useState(false);
  if (rows.length === 0 && wanted === "") return html`<p class="quiet">${empty}</p>`;
  const found = rows.filter((row) => keyOf(row).toLowerCase().includes(wanted.toLowerCase()));
  const shown = showsAll ? found : found.slice(0, SHOWN);
  return html`
    ${(rows.length > SEARCHED_FROM || wanted !== "") &&
    html`<p class="search">
      <label>Search ${title.toLowerCase()} <input type="search" value=${wanted} onInput=${(event) => setWanted(event.target.value)} /></label>
      <span role="status" class="quiet">${counted(found.length, "row")}</span>
    </p>`}
    <div class="wide" role="region" aria-label=${title} tabindex="0">
      <table>
        <thead>
          <tr>${columns.map((column) => html`<th scope="col" class=${classOf(column)}>${column.name}</th>`)}</tr>
        </thead>
        <tbody>
          ${shown.map((row) => html`<${Row} key=${keyOf(row)} row=${row} columns=${columns} />`)}
        </tbody>
      </table>
    </div>
    ${found.length > shown.length &&
    html`<button type="button" onClick=${() => setShowsAll(true)}>Show the other ${counted(found.length - shown.length, "row")}</button>`}
  `;
}

function Row({ row, columns }) {
  const [first, ...others] = columns;
  return html`<tr>
    <th scope="row" class=${classOf(first)} data-label=${first.name}>${first.cell(row)}</th>
    ${others.map((column) => html`<td class=${classOf(column)} data-label=${column.name}>${column.cell(row)}</td>`)}
  </tr>`;
}

/** @param {Column} column */
function classOf({ isNumber, isShort, isText }) {
  return isNumber ? "number" : isShort ? "short" : isText ? "text" : "";
}

// An action that changes the server: says what it will do, does it when that is confirmed, and says what came of it.

import { html, useEffect, useRef, useState } from "../html.js";

/**
 * A button that opens a dialog.
 * @param {object} given
 * @param {string} given.name of the action, e.g. "Roll back"
 * @param {any} given.children what the dialog says the action will do, with its fields
 * @param {() => Promise<any>} given.act
 * @param {() => void} given.onDone called once it is done
 * @param {boolean} [given.isDisabled] whether the fields' values are not valid
 */
export function Action({ name, children, act, onDone, isDisabled = false }) {
  const dialog = useRef(null);
  const [isOpen, setIsOpen] = useState(false);
  const [isBusy, setIsBusy] = useState(false);
  const [problem, setProblem] = useState("");
  useEffect(() => {
    if (isOpen) dialog.current.showModal();
  }, [isOpen]);
  const close = () => setIsOpen(false);
  const submit = async (event) => {
    event.preventDefault();
    setIsBusy(true);
    setProblem("");
    try {
      await act();
      close();
      onDone();
    } catch (error) {
      setProblem(error.message);
    }
    setIsBusy(false);
  };
  return html`
    <button type="button" onClick=${() => { setProblem(""); setIsOpen(true); }}>${name} …</button>
    ${isOpen &&
    html`<dialog ref=${dialog} onClose=${close} aria-label=${name}>
      <form onSubmit=${submit}>
        <h2>${name}</h2>
        ${children}
        ${problem && html`<p role="alert" class="notice bad">${problem}</p>`}
        <p class="buttons">
          <button type="submit" class="main" disabled=${isBusy || isDisabled}>${isBusy ? "Working …" : name}</button>
          <button type="button" onClick=${close}>Cancel</button>
        </p>
      </form>
    </dialog>`}
  `;
}

// Where the operator shows a token.

import { html, useRef, useState } from "../html.js";

/**
 * @param {object} given
 * @param {string} given.problem why the last token was not taken, or why the session ended
 * @param {(token: string) => Promise<void>} given.enter
 */
export function Login({ problem, enter }) {
  const field = useRef(null);
  const [isBusy, setIsBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    setIsBusy(true);
    await enter(field.current.value.trim());
    setIsBusy(false);
  };
  return html`<main class="login">
    <h1>Clipper</h1>
    <form onSubmit=${submit}>
      <label for="token">Token</label>
      <input id="token" type="password" autocomplete="off" spellcheck=${false} required ref=${field} aria-describedby="where" />
      <button type="submit" class="main" disabled=${isBusy}>Log in</button>
    </form>
    ${problem && html`<p role="alert" class="notice bad">${problem}</p>`}
    <div id="where">
      <p>On the server's machine <code>clipper dashboard</code> prints a link that logs in.</p>
      <p>The server's own token is in the file <code>token</code> of its home. <code>clipper token create NAME --role read</code> makes one that can only read.</p>
      <p>The token stays in this tab until the tab is closed.</p>
    </div>
  </main>`;
}

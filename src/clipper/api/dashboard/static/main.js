// The dashboard: the session, and the page that is shown.

import { html, render, useEffect, useRef, useState } from "./html.js";
import { forgetToken, keptToken, logIn, tokenOfLink } from "./session.js";
import { link, useRoute } from "./router.js";
import { usePoll } from "./poll.js";
import { clock } from "./format.js";
import { Application } from "./pages/application.js";
import { Events } from "./pages/events.js";
import { Login } from "./pages/login.js";
import { Logs } from "./pages/logs.js";
import { Model } from "./pages/model.js";
import { Overview } from "./pages/overview.js";
import { Try } from "./pages/try.js";

/**
 * What every page gets: the API, whether the token may change anything, the server's status, and the route.
 * @typedef {{api: import("./api.js").Api, mayAct: boolean, status: any, route: import("./router.js").Route}} Seen
 */

function Dashboard() {
  const [session, setSession] = useState(null);
  const [problem, setProblem] = useState("");
  const leave = (why) => {
    forgetToken();
    setSession(null);
    setProblem(why);
  };
  const enter = async (token) => {
    try {
      setSession(await logIn(token));
      setProblem("");
    } catch (error) {
      // Not for the token of a link that anyone may have made.
      if (error.status === 401 && token === keptToken()) forgetToken();
      setProblem(error.message);
    }
  };
  useEffect(() => {
    const token = tokenOfLink() ?? keptToken();
    if (token !== null) enter(token);
    // A link to the present address loads no page.
    const follow = () => {
      const given = tokenOfLink();
      if (given !== null) enter(given);
    };
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  if (session === null) return html`<${Login} problem=${problem} enter=${enter} />`;
  return html`<${Inside} session=${session} leave=${leave} />`;
}

function Inside({ session, leave }) {
  const route = useRoute();
  const status = usePoll(() => session.api.get("status"), [session]);
  const answeredAt = useRef(0);
  if (!status.error) answeredAt.current = Date.now() / 1000;
  useEffect(() => {
    if (status.error?.status === 401) leave(status.error.message);
  }, [status.error]);
  const isLost = status.error?.code === "unreachable";
  const [Page, title] = pageOf(route);
  const seen = { ...session, status: status.value, route };
  return html`
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.getElementById("main").focus(); }}>Skip to the page</a>
    <header>
      <nav aria-label="Pages">
        <a class="brand" href=${link()}>Clipper</a>
        <a href=${link()} aria-current=${route.parts.length === 0 ? "page" : undefined}>Overview</a>
        <a href=${link("events")} aria-current=${route.parts[0] === "events" ? "page" : undefined}>Events</a>
        <a href=${link("logs")} aria-current=${route.parts[0] === "logs" ? "page" : undefined}>Logs</a>
      </nav>
      <span class="quiet">${status.value ? `version ${status.value.version}` : ""}</span>
      <span class="quiet">role ${session.mayAct ? "admin" : "read"}</span>
      <button type="button" onClick=${() => leave("")}>Log out</button>
    </header>
    <div aria-live="assertive">
      ${isLost &&
      html`<p class="notice bad">The server has not answered since ${clock(answeredAt.current)}. The values below are from then. This page goes on asking.</p>`}
    </div>
    <${Main} title=${title} key=${route.parts.join("/")}><${Page} ...${seen} /></${Main}>
  `;
}

/** The page's own part, which gets the focus when the page changes, so that a screen reader announces it. */
function Main({ title, children }) {
  const main = useRef(null);
  useEffect(() => {
    document.title = `${title} – Clipper`;
    main.current.focus({ preventScroll: true });
    scrollTo(0, 0);
  }, []);
  return html`<main id="main" tabindex="-1" ref=${main}><h1>${title}</h1>${children}</main>`;
}

/** @param {import("./router.js").Route} route */
function pageOf({ parts: [noun, name, part] }) {
  if (noun === undefined) return [Overview, "Overview"];
  if (noun === "events") return [Events, "Events"];
  if (noun === "logs") return [Logs, "Logs of the server"];
  if (noun === "applications" && name !== undefined) {
    if (part === undefined) return [Application, `Application ${name}`];
    if (part === "try") return [Try, `Try ${name}`];
  }
  if (noun === "models" && name !== undefined) {
    if (part === undefined) return [Model, `Model ${name}`];
    if (part === "logs") return [Logs, `Logs of ${name}`];
  }
  return [Nothing, "No such page"];
}

function Nothing() {
  return html`<p>There is no page at this address. <a href=${link()}>Go to the overview</a>.</p>`;
}

render(html`<${Dashboard} />`, document.getElementById("dashboard"));

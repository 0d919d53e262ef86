// Which page the address names: the part after "#", e.g. "#/models/digits/logs?version=2".

import { useEffect, useState } from "./html.js";

/**
 * @typedef {{parts: string[], query: URLSearchParams}} Route
 * @returns {Route}
 */
function read() {
  const [way, query] = location.hash.replace(/^#\/?/, "").split("?");
  return { parts: way.split("/").filter(Boolean).map(decoded), query: new URLSearchParams(query) };
}

/** @param {string} text */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** @returns {Route} the route, kept up to date */
export function useRoute() {
  const [route, setRoute] = useState(read);
  useEffect(() => {
    const follow = () => setRoute(read());
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  return route;
}

/**
 * The address of a page.
 * @param {string[]} parts
 */
export function link(...parts) {
  return `#/${parts.map(encodeURIComponent).join("/")}`;
}

// Where the token is kept: in this tab alone, until the tab is closed. It is no cookie, so no other site's page can
// have it sent along.

import { Api } from "./api.js";

const KEY = "clipper-token";

/** @returns {string | null} the token in the link that led here (#token=...), which is then gone from the address */
export function tokenOfLink() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given !== null) history.replaceState(null, "", "#/");
  return given;
}

/** @returns {string | null} */
export function keptToken() {
  return sessionStorage.getItem(KEY);
}

export function forgetToken() {
  sessionStorage.removeItem(KEY);
}

/**
 * Find out whether the server knows the token, and keep it if so.
 * @param {string} token
 * @returns {Promise<{api: Api, mayAct: boolean}>} mayAct: whether its role is admin
 * @throws {import("./api.js").ApiError}
 */
export async function logIn(token) {
  const api = new Api(token);
  await api.get("status");
  let mayAct = true;
  try {
    await api.get("tokens");
  } catch (error) {
    if (error.status !== 403) throw error;
    mayAct = false;
  }
  sessionStorage.setItem(KEY, token);
  return { api, mayAct };
}

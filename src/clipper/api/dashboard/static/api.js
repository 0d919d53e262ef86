// Calls of the management API.

// The server answers in milliseconds, but for a rollback, which waits until every worker serves the version.
const TIMEOUT_MS = 120_000;

/** A call that failed: the server's own code and cause, or "unreachable" if no answer came. */
export class ApiError extends Error {
  /**
   * @param {number} status the HTTP status; 0 without an answer
   * @param {string} code
   * @param {string} cause
   */
  constructor(status, code, cause) {
    super(cause);
    this.status = status;
    this.code = code;
  }
}

/**
 * The API of the server that this page is from.
 * @typedef {Record<string, string | number | string[]>} Query parameters; one with several values is given several times
 */
export class Api {
  /** @param {string} token */
  constructor(token) {
    this.token = token;
  }

  /**
   * @param {string} path after the API's root, e.g. "models/digits"
   * @param {Query} [query]
   * @returns {Promise<any>}
   */
  get(path, query) {
    return this.call("GET", path, { query });
  }

  /**
   * Call the API and return what it answers, read as JSON if it is that.
   * @param {string} method
   * @param {string} path
   * @param {{query?: Query, body?: any, headers?: Record<string, string>}} [parts]
   * @returns {Promise<any>}
   * @throws {ApiError}
   */
  async call(method, path, { query = {}, body, headers = {} } = {}) {
    const url = new URL(`../${path}`, document.baseURI);
    for (const [name, values] of Object.entries(query)) {
      for (const value of [values].flat()) url.searchParams.append(name, String(value));
    }
    const sent = { Authorization: `Bearer ${this.token}`, ...headers };
    if (Object.values(sent).some((value) => !/^[\x20-\x7e]*$/.test(value))) {
      throw new ApiError(400, "malformed_request", "a token or key has only letters, digits and ._~+/=-");
    }
    if (body !== undefined) sent["Content-Type"] = "application/json";
    let response, text;
    try {
      response = await fetch(url, {
        method,
        headers: sent,
        body: body === undefined ? undefined : JSON.stringify(body),
        signal: AbortSignal.timeout(TIMEOUT_MS),
        cache: "no-store",
        credentials: "omit",
      });
      text = await response.text();
    } catch (error) {
      throw new ApiError(0, "unreachable", `the server does not answer: ${error.message}`);
    }
    const isJson = (response.headers.get("Content-Type") ?? "").includes("json");
    const answer = isJson && text ? JSON.parse(text) : text;
    if (response.ok) return answer;
    throw new ApiError(response.status, answer.error ?? "unknown", answer.cause ?? `status ${response.status}`);
  }
}

/**
 * A path of the API, with names as one part each.
 * @param {string[]} parts
 */
export function path(...parts) {
  return parts.map(encodeURIComponent).join("/");
}

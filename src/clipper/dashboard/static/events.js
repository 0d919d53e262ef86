// The server's events, followed: each is asked for once.

// As many as a page shows and a chart marks, and as one call may ask for.
const KEPT = 1_000;

/**
 * @typedef {{id: number, time_s: number, kind: string, subject: string, version: string | null, message: string,
 *   level: "info" | "warning" | "error"}} Event subject: e.g. "model digits" or "server"
 */
export class Events {
  /** @param {import("./api.js").Api} api */
  constructor(api) {
    this.api = api;
    /** @type {Event[]} */
    this.kept = [];
    this.next = null;
  }

  /**
   * Read the latest events, and from then on what has been added.
   * @returns {Promise<Event[]>} oldest first
   */
  async read() {
    const after = this.next === null ? {} : { after: this.next };
    const { events, next } = await this.api.get("events", { limit: KEPT, ...after });
    this.next = next;
    if (events.length > 0) this.kept = [...this.kept, ...events].slice(-KEPT);
    return this.kept;
  }
}

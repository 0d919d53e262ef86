// The server's events, followed: each is asked for once.

/**
 * @typedef {{id: number, time_s: number, kind: string, subject: string, version: string | null, message: string,
 *   level: "info" | "warning" | "error"}} Event subject: e.g. "model digits" or "server"
 */
export class Events {
  /**
   * @param {import("./api.js").Api} api
   * @param {number} most how many to keep, the latest; one call may ask for 1,000
   */
  constructor(api, most) {
    this.api = api;
    this.most = most;
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
    const { events, next } = await this.api.get("events", { limit: this.most, ...after });
    this.next = next;
    if (events.length > 0) this.kept = [...this.kept, ...events].slice(-this.most);
    return this.kept;
  }
}

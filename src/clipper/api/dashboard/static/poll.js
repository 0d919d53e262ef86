// Values that are polled while the page is in the foreground.

import { useEffect, useState } from "./html.js";

export const EVERY_MS = 2_000;
// An answer that took long, such as that of a thousand models, is asked for less often: it may take this share of the
// time of a processor.
const BUSY_SHARE = 0.1;

/**
 * Ask now, and then every everyMs, while the page is in the foreground.
 * @param {() => Promise<any>} load
 * @param {any[]} inputs what load depends on; if one changes, the value is dropped and asked for at once
 * @param {number | null} [everyMs] null: only once
 * @returns {{value: any, error: import("./api.js").ApiError | null, again: () => void}}
 *   value: the last answer, undefined before the first; error: why the last call failed, null if it did not
 */
export function usePoll(load, inputs, everyMs = EVERY_MS) {
  const [state, setState] = useState({ value: undefined, error: null, of: inputs });
  const [asked, setAsked] = useState(0);
  useEffect(() => {
    let timer, isAsking = false, isOver = false;
    const once = async () => {
      timer = undefined;
      isAsking = true;
      const began = performance.now();
      try {
        const value = await load();
        if (!isOver) setState({ value, error: null, of: inputs });
      } catch (error) {
        if (!isOver) setState((old) => ({ value: isSame(old.of, inputs) ? old.value : undefined, error, of: inputs }));
      }
      isAsking = false;
      if (isOver || document.hidden || everyMs === null) return;
      timer = setTimeout(once, Math.max(everyMs, (performance.now() - began) / BUSY_SHARE));
    };
    const returned = () => {
      if (!document.hidden && !isAsking && timer === undefined && everyMs !== null) once();
    };
    document.addEventListener("visibilitychange", returned);
    once();
    return () => {
      isOver = true;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", returned);
    };
  }, [...inputs, everyMs, asked]);
  const current = isSame(state.of, inputs) ? state : { value: undefined, error: null };
  return { value: current.value, error: current.error, again: () => setAsked(asked + 1) };
}

function isSame(some, others) {
  return some.every((one, index) => one === others[index]);
}

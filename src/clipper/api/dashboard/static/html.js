// All parts are written with these: Preact's elements as htm's templates, and Preact's hooks.
// A template's values become text and properties, never HTML.

import { h } from "./vendor/preact.js";
import htm from "./vendor/htm.js";

export const html = htm.bind(h);
export { render } from "./vendor/preact.js";
export { useEffect, useMemo, useRef, useState } from "./vendor/preact-hooks.js";

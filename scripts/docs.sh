#!/bin/sh
# Builds the site of docs/ into build/site, and fails where a link or an anchor leads nowhere, a docstring of the reference
# names a parameter that is not there, a page would load something from another site, or its search does not find a page first.
set -eu
cd "$(dirname "$0")/.."
environment=$(sh scripts/environment.sh docs requirements/docs.txt)
.venv/bin/python scripts/docs_tree.py build
rm -rf build/site
log=build/zensical.log
(cd build && PATH="$environment/bin:$PATH" zensical build --clean --strict) >"$log" 2>&1 || { cat "$log" && exit 1; }
cat "$log"
# It only warns of docstrings.
if grep -q "^griffe:" "$log"; then
    exit 1
fi
.venv/bin/python scripts/foreign_loads.py build/site
if command -v node >/dev/null; then
    node scripts/site_search.mjs build/site
else
    echo "There is no node, so the site's search was not tried." >&2
fi
echo "The site is in build/site: open index.html, or for its search run python -m http.server -d build/site"

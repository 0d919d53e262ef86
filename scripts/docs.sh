#!/bin/sh
# Builds the site of docs/ into build/site, and fails where a link or an anchor leads nowhere, or a page would load something
# from another site.
set -eu
cd "$(dirname "$0")/.."
environment=$(sh scripts/environment.sh docs requirements/docs.txt)
.venv/bin/python scripts/docs_tree.py build
rm -rf build/site
(cd build && PATH="$environment/bin:$PATH" zensical build --clean --strict)
.venv/bin/python scripts/foreign_loads.py build/site
echo "The site is in build/site: open index.html, or for its search run python -m http.server -d build/site"

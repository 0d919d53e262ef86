#!/bin/sh
# Installs Clipper with the lowest versions that pyproject.toml allows of its own dependencies, and serves a model with
# them: a lower bound that is not true fails here.
set -eu
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
PATH="$PWD/.venv/bin:$PATH"
uv venv --quiet --python .venv/bin/python --allow-existing "$folder"
uv pip install --quiet --python "$folder/bin/python" --resolution lowest-direct .
uv pip list --python "$folder/bin/python"
sh scripts/serve_once.sh "$folder/bin"

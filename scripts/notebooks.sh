#!/bin/sh
# Runs the notebooks, each in a fresh kernel, or those that are named: notebooks.sh [--save] [NAME.ipynb ...]. With --save the
# files get the outputs.
set -eu
cd "$(dirname "$0")/.."
environment=$(sh scripts/environment.sh notebooks requirements/notebooks.txt)
# What .venv has comes after what the environment itself has.
packages='import sysconfig; print(sysconfig.get_path("purelib"))'
.venv/bin/python -c "$packages" >"$("$environment/bin/python" -c "$packages")/checkout.pth"
PATH="$(pwd)/.venv/bin:$PATH" PYTHONPATH="$(pwd)/src" "$environment/bin/python" scripts/run_notebooks.py "$@"

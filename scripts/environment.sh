#!/bin/sh
# Makes an environment with what a file of requirements pins, once for each state of that file, and prints its folder. It is
# outside of the checkout, so that a clean checkout finds it again: environment.sh NAME REQUIREMENTS...
set -eu
cd "$(dirname "$0")/.."
name=${1:?"usage: environment.sh NAME REQUIREMENTS..."}
shift
python=${PYTHON:-python3}
key=$({ "$python" -VV && cat "$@" scripts/environment.sh; } | sha256sum | cut -c1-12)
folder=${XDG_CACHE_HOME:-$HOME/.cache}/clipper/$name/$key
if [ ! -f "$folder/complete" ]; then
    echo "Making an environment for $name; this is done once." >&2
    rm -rf "$folder"
    "$python" -m venv "$folder"
    for file in "$@"; do
        "$folder/bin/python" -m pip install --quiet --disable-pip-version-check -r "$file" >&2
    done
    touch "$folder/complete"
fi
echo "$folder"

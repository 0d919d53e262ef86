#!/bin/sh
# Makes an environment in which Clipper is compiled, once for each state of its source, and prints its folder. It uses the
# other packages of .venv. It is outside of the checkout, where nothing compiled can be taken for what is edited.
set -eu
cd "$(dirname "$0")/.."
mine=${XDG_CACHE_HOME:-$HOME/.cache}/clipper/compiled/$(pwd | sha256sum | cut -c1-12)
key=$({
    .venv/bin/python -VV
    cat pyproject.toml requirements/constraints.txt scripts/build_hook.py scripts/compiled.sh
    find src -name '*.py' | sort | while read -r file; do echo "$file" && cat "$file"; done
} | sha256sum | cut -c1-12)
folder=$mine/$key
if [ ! -f "$folder/complete" ]; then
    echo "Compiling the query path: once for each state of the source, and it takes a minute." >&2
    rm -rf "$mine" # with those of other states
    .venv/bin/python -m venv --without-pip "$folder"
    if ! HATCH_BUILD_HOOKS_ENABLE=1 .venv/bin/python -m hatchling build -t wheel -d "$folder/wheel" >"$folder/log" 2>&1; then
        cat "$folder/log" >&2
        exit 1
    fi
    .venv/bin/python -m pip --python "$folder/bin/python" install --quiet --disable-pip-version-check --no-deps \
        --no-index "$folder"/wheel/*.whl >&2
    packages='import sysconfig; print(sysconfig.get_path("purelib"))'
    .venv/bin/python -c "$packages" >"$("$folder/bin/python" -c "$packages")/others.pth"
    touch "$folder/complete"
fi
echo "$folder"

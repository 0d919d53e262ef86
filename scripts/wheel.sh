#!/bin/sh
# Builds a wheel with the query path compiled into the folder $1, dist/ if it is left out, for each of Python 3.11 to 3.14 that
# is there; with PYTHON, for that one. With TARGET=aarch64, zig compiles it for that processor. `pip wheel .` compiles nothing.
set -eu
cd "$(dirname "$0")/.."
folder=${1:-dist}
built=
if [ -n "${TARGET:-}" ]; then
    zig=$(PYTHON= sh scripts/environment.sh cross requirements/cross.txt)/bin/python
    zig="'$zig' -m ziglang cc -target $TARGET-linux-gnu.2.17"
fi
for name in ${PYTHON:-python3.11 python3.12 python3.13 python3.14}; do
    version=$("$name" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    # What it is compiled with, and what it is compiled against, at the versions of constraints.txt.
    build=${XDG_CACHE_HOME:-$HOME/.cache}/clipper/wheels/$version-$(cat requirements/constraints.txt pyproject.toml scripts/wheel.sh | sha256sum | cut -c1-12)
    if [ ! -f "$build/complete" ]; then
        rm -rf "$build"
        "$name" -m venv "$build"
        "$build/bin/python" -m pip install --quiet --disable-pip-version-check -c requirements/constraints.txt \
            hatchling mypy setuptools ".[grpc,otel,redis]" # with the types of what it imports
        touch "$build/complete"
    fi
    set -- HATCH_BUILD_HOOKS_ENABLE=1
    if [ -n "${TARGET:-}" ]; then
        # Both name the processor: of the modules, and of the wheel.
        suffix=.cpython-$(echo "$version" | tr -d .)-$TARGET-linux-gnu.so
        set -- "$@" CC="$zig" LDSHARED="$zig -shared" SETUPTOOLS_EXT_SUFFIX="$suffix" _PYTHON_HOST_PLATFORM="linux-$TARGET"
    fi
    env "$@" "$build/bin/python" -m hatchling build -t wheel -d "$folder"
    built="$built $version"
done
if [ -z "$built" ]; then
    echo "None of Python 3.11 to 3.14 is there: name one, as in make PYTHON=/path/to/python3.12 wheel" >&2
    exit 1
fi

#!/bin/sh
# Makes .venv and installs Clipper into it, editable, with the extra that is asked for (dev, mutants, bench or paper), at the
# versions of requirements/constraints.txt. Returns at once where that was done and nothing has changed since.
set -eu
cd "$(dirname "$0")/.."
extra=${1:?"usage: setup.sh EXTRA"}

find_python() {
    for name in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "No Python 3.11 or later among: ${PYTHON:-python3 python3.13 python3.12 python3.11}" >&2
    echo "Install one, or name it: make PYTHON=/path/to/python3.12 ..." >&2
    return 1
}

make_venv() {
    python=$(find_python)
    rm -rf .venv
    echo "Making .venv with $("$python" --version) and installing; this is done once."
    # Debian splits ensurepip off into python3-venv.
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
        sh scripts/apt-install.sh "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    fi
    "$python" -m venv .venv
}

# The folder is part of it: an environment that was copied or moved still points to where it was made.
wanted=$({ pwd && cat requirements/constraints.txt pyproject.toml scripts/setup.sh; } | sha256sum)
stamp=.venv/installed-$extra
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    exit 0
fi

.venv/bin/python -m pip --version >/dev/null 2>&1 || make_venv
install=".venv/bin/python -m pip install --quiet --disable-pip-version-check -c requirements/constraints.txt"
# What builds is installed first and used as it is, since constraints do not reach an isolated build: setuptools builds what has no wheel.
$install hatchling editables setuptools
# Tests of the shared selection state and of Docker run against real servers of their own; those of sdk/ build what is there; those
# of the dashboard look at it with a browser. Those of completion type into real shells, and systemd checks its unit.
if [ "$extra" = dev ] || [ "$extra" = mutants ]; then
    command -v redis-server >/dev/null || sh scripts/apt-install.sh redis-server
    command -v dockerd >/dev/null || [ -x /usr/sbin/dockerd ] || sh scripts/apt-install.sh docker.io
    command -v docker-registry >/dev/null || sh scripts/apt-install.sh docker-registry
    command -v chromium >/dev/null || sh scripts/apt-install.sh chromium
    command -v h2load >/dev/null || sh scripts/apt-install.sh nghttp2-client
    command -v zsh >/dev/null || sh scripts/apt-install.sh zsh
    command -v fish >/dev/null || sh scripts/apt-install.sh fish
    command -v systemd-analyze >/dev/null || sh scripts/apt-install.sh systemd
    command -v g++ >/dev/null || sh scripts/apt-install.sh g++
    command -v cmake >/dev/null || sh scripts/apt-install.sh cmake make
    command -v javac >/dev/null || sh scripts/apt-install.sh default-jdk-headless
fi
$install --no-build-isolation -e ".[$extra]"
printf '%s\n' "$wanted" >"$stamp"

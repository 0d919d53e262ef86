#!/bin/sh
# Installs the wheel $1 with the Python $2 into an empty machine, a fresh root of Debian's packages without a network, and does there
# what README's first model and the tutorial say, as a user who is not root. `clipper --version` is $3 there. Needs root, or sudo.
set -eu
cd "$(dirname "$0")/.."
wheel=$1
python=$2
as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
work=$(mktemp -d)
trap '$as_root rm -rf "$work"' EXIT
"$python" -m venv "$work/fetches"
"$work/fetches/bin/python" -m pip wheel --quiet --disable-pip-version-check -c requirements/constraints.txt \
    --wheel-dir "$work/wheels" "$wheel[sklearn]"
mkdir "$work/root"
$as_root tar -xf "$(sh scripts/debian_root.sh python3-venv,curl)" -C "$work/root"
$as_root mv "$work/wheels" "$work/root/wheels"
# A Python that is not Debian's lies there where it lies here, without the packages that it has here.
prefix=$("$python" -c 'import sys; print(sys.base_prefix)')
if [ "$prefix" != /usr ]; then
    tar -c --exclude='site-packages/*' --exclude='*/test' -C / "${prefix#/}" | $as_root tar -x -C "$work/root"
    $as_root chmod a+x "$work/root/root"
fi
# The shell is process 1 there: it waits for what others leave behind, and all ends with it.
$as_root unshare --mount --net --pid --fork sh -c '"$@"; exit' sh .venv/bin/python -m tests.docs.empty_machine \
    "$work/root" "$(basename "$wheel")" "$("$python" -c 'import os, sys; print(os.path.realpath(sys._base_executable))')" "$3"

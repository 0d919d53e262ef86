#!/bin/sh
# Builds the Docker image `clipper` (IMAGE names another) from deploy/docker/Dockerfile, which compiles the query path of its wheel.
# PYTHON=python3.11 picks the image's Python, 3.12 if it is left out; this machine needs none. BUILD_OPTIONS has further options.
set -eu
cd "$(dirname "$0")/.."
version=${PYTHON:-python3.12}
version=${version##*python}
case $version in
3.[0-9]*) ;;
*)
    echo "Expected a Python with its version, as in make PYTHON=python3.11 image; not ${PYTHON}" >&2
    exit 1
    ;;
esac
commit=$(git describe --always --exclude='*' --abbrev=8 --dirty 2>/dev/null) || commit=
# shellcheck disable=SC2086 # these are words
docker build ${BUILD_OPTIONS:-} -f deploy/docker/Dockerfile --build-arg PYTHON="$version" --build-arg COMMIT="$commit" -t "${IMAGE:-clipper}" .

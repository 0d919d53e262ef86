#!/bin/sh
# Builds the Docker image `clipper` from deploy/docker/Dockerfile, with a wheel whose query path is compiled. PYTHON is the interpreter that
# compiles it, by default python3.12; the image has the same version.
set -eu
cd "$(dirname "$0")/.."
export PYTHON="${PYTHON:-python3.12}"
version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# Of wheels of other states of the source the image would take any.
rm -f dist/clipper_serving-*.whl
sh scripts/wheel.sh
docker build -f deploy/docker/Dockerfile --build-arg PYTHON="$version" -t "${IMAGE:-clipper}" .

#!/bin/sh
# Builds the Docker image `clipper` (IMAGE names another) from deploy/docker/Dockerfile, with a wheel whose query path is compiled. The
# image has the version of the Python that compiles: of PYTHON, else the first of python3.12, 3.13 and 3.11 that is there.
set -eu
cd "$(dirname "$0")/.."
version=
for name in ${PYTHON:-python3.12 python3.13 python3.11}; do
    version=$("$name" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) && break
done
if [ -z "$version" ]; then
    echo "None of these is there: ${PYTHON:-python3.12 python3.13 python3.11}; name one, as in make PYTHON=/path/to/python3.12 image" >&2
    exit 1
fi
# Of several states of the source the image would take any.
rm -f dist/clipper_serving-*.whl
PYTHON=$name sh scripts/wheel.sh
docker build -f deploy/docker/Dockerfile --build-arg PYTHON="$version" -t "${IMAGE:-clipper}" .

#!/bin/sh
# Has a container of the image $1 serve a model, and writes the image into the file $2, which `docker load` reads.
set -eu
cd "$(dirname "$0")"
docker run --rm --network host --entrypoint sh -v "$PWD/serve_once.sh:/serve_once.sh:ro" "$1" /serve_once.sh /usr/local/bin
docker run --rm --network host "$1" --version
docker save "$1" | gzip >"$2"

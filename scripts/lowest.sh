#!/bin/sh
# Installs Clipper with the lowest versions that pyproject.toml allows of its own dependencies, and serves a model with
# them: a lower bound that is not true fails here.
set -eu
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
export CLIPPER_HOME="$folder/home" PATH="$folder/bin:$PWD/.venv/bin:$PATH"
trap 'clipper stop > "$folder/stopped" 2>&1 || true; rm -rf "$folder"' EXIT
uv venv --quiet --python .venv/bin/python --allow-existing "$folder"
uv pip install --quiet --python "$folder/bin/python" --resolution lowest-direct .
uv pip list --python "$folder/bin/python"
printf 'def predict(inputs):\n    return inputs.sum(1)\n' > "$folder/sums.py"
cd "$folder"
clipper start --query-port 0 --management-port 0 --grpc-port off
clipper deploy sums sums:predict --input-type 'float64[2]'
clipper app create sums --model sums --slo-ms 20000
test "$(clipper predict sums '[1, 2]')" = 3.0
clipper load sums --rate 50 --duration 1s
clipper status
